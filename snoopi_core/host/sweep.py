"""One picture for each strength of NASA, from the same noise (Figure 5 of SNOOPI, arXiv 2412.02687).

Each strength is sampled and decoded by itself, with the whole batch of the latent: so its pictures are, bit for bit,
those that NASA Apply and the sampler give at that strength, and a GPU's memory does not grow with their number. All are
sampled before the first is decoded, so that network and VAE change places on the GPU once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import comfy.model_management
import comfy.samplers
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ..pictures.contact_sheet import contact_sheet
from ..presets import AUTO
from .conditioning.negative import Conditioning
from .conditioning.window import Window
from .nasa.apply import read_steering, steer
from .one_step import Callback, Latent, Way, one_step_way, sample_alone

_SPEAKER = "NASA Scale Sweep"


def sweep(
    patcher: ModelPatcher,
    positive: list,
    negative: Conditioning,
    latent: Latent,
    vae: comfy.sd.VAE | None,
    *,
    alphas: Sequence[float],
    seed: int,
    timesteps: str = AUTO,
    preset: str = AUTO,
    sampler: comfy.samplers.Sampler | None = None,
    sigmas: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A labelled page of all pictures, (1, H, W, 3), and the pictures, (alphas x batch, h, w, 3).

    Args:
        timesteps, preset: of One-Step Sampler.
        sampler, sigmas: of the host's custom sampling, in place of these two; both or none.

    Raises:
        ValueError: what NASA Apply and One-Step Sampler refuse, a sampler without sigmas or sigmas without a sampler,
            no VAE.
    """
    if vae is None:
        raise ValueError("vae is empty: the file holds none. Connect a Load VAE node")
    # Read once, and before anything is sampled, so that a mistake is told at once.
    steering = read_steering(patcher, negative, alpha=0.0, window=Window(), blocks="all")
    way = _way(patcher, timesteps, preset, sampler, sigmas)
    # Without previews of the latents: the front end would go on showing the last one in place of the node's page.
    progress = comfy.utils.ProgressBar(way.steps * len(alphas))
    samples = []
    for number, alpha in enumerate(alphas):
        comfy.model_management.throw_exception_if_processing_interrupted()
        steered = steer(way.patcher, dataclasses.replace(steering, alpha=alpha))
        one = dataclasses.replace(way, patcher=steered)
        sampled = sample_alone(one, positive, latent, seed=seed, callback=_part(progress, number * way.steps))
        samples.append(sampled["samples"])
    pictures = _decode(vae, samples)
    return contact_sheet(pictures, [f"alpha {alpha:g}" for alpha in alphas]), pictures.flatten(0, 1)


def _way(
    patcher: ModelPatcher,
    timesteps: str,
    preset: str,
    sampler: comfy.samplers.Sampler | None,
    sigmas: torch.Tensor | None,
) -> Way:
    if sampler is None and sigmas is None:
        return one_step_way(patcher, timesteps=timesteps, preset=preset, speaker=_SPEAKER)
    if sampler is None or sigmas is None:
        missing, there = ("sampler", "sigmas") if sampler is None else ("sigmas", "sampler")
        raise ValueError(f"{there} is connected but {missing} is not; connect both, or none for a one-step model")
    if len(sigmas) < 2:
        raise ValueError(f"sigmas has {len(sigmas)} value(s), which is no step; expected 2 or more")
    return Way(patcher=patcher, sigmas=sigmas, sampler=lambda noise_of: sampler, speaker=_SPEAKER)


def _part(progress: comfy.utils.ProgressBar, done: int) -> Callback:
    """Tells the steps of one sampling run, when those before it had `done` steps."""
    return lambda step, x0, x, steps: progress.update_absolute(done + step + 1)


def _decode(vae: comfy.sd.VAE, samples: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pictures (alphas, B, h, w, 3), the frames of videos one after the other, as the host's VAE Decode gives them."""
    pictures = None
    for number, each in enumerate(samples):
        comfy.model_management.throw_exception_if_processing_interrupted()
        images = vae.decode(each)
        images = images.reshape(-1, *images.shape[-3:])
        if pictures is None:  # all at once, because to join them in the end would take twice the memory
            pictures = images.new_empty(len(samples), *images.shape)
        pictures[number] = images
    return pictures
