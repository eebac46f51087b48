"""A rotation of the source's noise, after which students see what decides a picture.

What a linear map can tell of the source's picture from its noise is in some sixteen directions of the noise, the same
for all prompts: each a sum over all of it, with weights that look like noise themselves. A network whose tokens know
only their distances hardly finds such sums. Students of the noise as it is draw a prompt in one way, the blurred mean
of all. Turned noise is white noise too, but there these sums are its lowest frequencies.

Dimensions: D the 1,024 numbers of a noise, K DIRECTIONS.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from scipy.fft import idctn
from scipy.linalg import null_space
from tqdm import tqdm

from experiments.joint_students.world import LATENT, SUBJECTS, load, sampler

DIRECTIONS = 16
DRAWS = 3000  # of each prompt
_RIDGE = 300.0


def turned(noise: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Noise (B, *LATENT) after the rotation."""
    return (noise.flatten(1) @ rotation.T).view_as(noise)


def digest(rotation: torch.Tensor) -> str:
    """Tells one rotation from another: a student knows only noise that was turned by its own."""
    return hashlib.sha256(rotation.numpy().tobytes()).hexdigest()[:16]


def turn(source: str, *, draws: int = DRAWS) -> torch.Tensor:
    """The rotation (D, D) of flat noise."""
    return to_lowest(informative(source, draws=draws))


def to_lowest(directions: torch.Tensor) -> torch.Tensor:
    """A rotation (D, D) that makes orthonormal directions (D, K) the lowest frequencies of the noise."""
    waves = lowest_frequencies(directions.shape[1])
    rest, others = (torch.from_numpy(null_space(each.T.numpy())) for each in (waves, directions))
    return (waves @ directions.T + rest @ others.T).float()


def informative(source: str, *, draws: int) -> torch.Tensor:
    """The K orthonormal directions (D, K) of the noise on which the pictures depend most, fp64.

    By ridge regression of latents on noise, for each of SUBJECTS alone.
    """
    generate = sampler(load(source), source)
    strength: torch.Tensor | float = 0.0
    for number, prompt in enumerate(tqdm(SUBJECTS, unit="prompt")):
        seeds = range(number * draws, (number + 1) * draws)
        parts = [list(seeds[n : n + 500]) for n in range(0, draws, 500)]
        noise = torch.cat([generate.noise(part).flatten(1) for part in parts]).double()
        latents = torch.cat([generate.latents([prompt] * len(part), part).flatten(1) for part in parts]).double()
        latents -= latents.mean(0)
        weights = torch.linalg.solve(noise.T @ noise + _RIDGE * torch.eye(noise.shape[1]), noise.T @ latents)
        strength = strength + weights @ weights.T / latents.square().mean()
    return torch.linalg.eigh(strength).eigenvectors.flip(1)[:, :DIRECTIONS]


def lowest_frequencies(count: int) -> torch.Tensor:
    """The first `count` cosines (D, count) of a discrete cosine transform, by frequency; orthonormal, fp64.

    Sixteen are the means of the sixteen channels.
    """
    by_frequency = sorted(np.ndindex(LATENT), key=lambda place: place[1] ** 2 + place[2] ** 2)
    waves = np.zeros((count, *LATENT))
    for wave, place in zip(waves, by_frequency, strict=False):
        wave[place] = 1.0
    return torch.from_numpy(idctn(waves, axes=(2, 3), norm="ortho")).flatten(1).T
