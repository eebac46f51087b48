"""Measures of quality and variety in the shapes world, independent of models.

Shares are in [0, 1], entropies in bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import torch

from experiments.removal import Generate, entropy
from training.prompts.shapes.captions import full_caption, partial_caption, sentence
from training.prompts.shapes.rules import read
from training.prompts.shapes.scene import ATTRIBUTES, sample_scenes


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well images follow captions.

    `per_attribute`: share of the images whose caption states it that show it; `stated`: share with all stated
    attributes right; `entropy`: of an attribute over the images whose caption does not state it.
    """

    count: int
    per_attribute: dict[str, float]
    stated: float
    valid: float
    entropy: dict[str, float]


def caption_set(count: int, seed: int, kind: str) -> tuple[list[str], list[dict[str, str]]]:
    """`count` captions and the attributes that each states.

    Raises:
        ValueError: `kind` is not "full" or "partial".
    """
    generator = torch.Generator().manual_seed(seed)
    scenes = sample_scenes(count, generator)
    if kind == "full":
        made = [full_caption(scene) for scene in scenes]
    elif kind == "partial":
        made = [partial_caption(scene, generator) for scene in scenes]
    else:
        raise ValueError(f"unknown kind {kind!r}; available: full, partial")
    return [caption for caption, _ in made], [stated for _, stated in made]


def accuracy(images: torch.Tensor, stated: list[dict[str, str]]) -> Accuracy:
    """Compare images (B, 3, 64, 64) with what their captions state (B dicts)."""
    reading = read(images)
    rows = range(len(stated))
    per_attribute, open_entropy = {}, {}
    for name in ATTRIBUTES:
        asked = [n for n in rows if name in stated[n]]
        left_open = [reading.values[name][n] for n in rows if name not in stated[n]]
        per_attribute[name] = fmean(reading.values[name][n] == stated[n][name] for n in asked) if asked else math.nan
        open_entropy[name] = entropy(left_open) if left_open else math.nan
    return Accuracy(
        count=len(stated),
        per_attribute=per_attribute,
        stated=fmean(reading.shows(n, stated[n]) for n in rows),
        valid=float(reading.valid.float().mean()),
        entropy=open_entropy,
    )


def prompt_entropy(generate: Generate, stated: list[dict[str, str]], *, count: int, seed: int) -> dict[str, float]:
    """Entropy of each attribute over `count` images of one prompt, mean over the prompts that do not state it."""
    return {name: fmean(bits) for name, bits in prompt_entropies(generate, stated, count=count, seed=seed).items()}


def prompt_entropies(
    generate: Generate, stated: list[dict[str, str]], *, count: int, seed: int
) -> dict[str, list[float]]:
    """Entropy of each attribute over `count` images of one prompt, for each prompt that does not state it."""
    found: dict[str, list[float]] = {name: [] for name in ATTRIBUTES}
    for each in stated:
        values = read(generate([sentence(each)] * count, list(range(seed, seed + count)))).values
        for name in ATTRIBUTES:
            if name not in each:
                found[name].append(entropy(values[name]))
    return found
