"""Measures of quality and variety in the avatars' world, independent of models.

A model is a callable `generate(prompts, seeds, negative=None)` that returns images (B, 3, 64, 64) in [0, 1], one for
each prompt and seed. Shares are in [0, 1], entropies in bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import torch

from experiments.removal import Generate, entropy
from training.prompts.avatars.captions import SUBJECT, Stated, caption, full_caption
from training.prompts.avatars.rules import Reading, read
from training.prompts.avatars.scene import SUBJECTS, Scene, sample_held_out, sample_scenes

KINDS = ("partial", "full", "held out")
TRIES = 10
# Prompts that leave much open, with what they state: for variety within a prompt.
OPEN_PROMPTS: dict[str, Stated] = {
    "a person": {SUBJECT: ("person",)},
    "a person with glasses": {SUBJECT: ("person",), "eyewear": ("glasses", "sunglasses")},
    "a person with long red hair": {SUBJECT: ("person",), "hair": ("long",), "hair colour": ("red",)},
    "a monster": {SUBJECT: ("monster",)},
    "a green monster with horns": {SUBJECT: ("monster",), "colour": ("green",), "headwear": ("horns",)},
    "a plant": {SUBJECT: ("plant",)},
    "a planet": {SUBJECT: ("planet",)},
    "a planet with a ring": {SUBJECT: ("planet",), "around": ("ring",)},
}


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well images follow captions.

    asked: in how many images the caption states an attribute. per_attribute: the share of these that show it.
    stated: the mean over attributes.
    all_stated: the share with everything right that is stated. valid: the share that looks like what was read in it.
    """

    count: int
    asked: dict[str, int]
    per_attribute: dict[str, float]
    stated: float
    all_stated: float
    valid: float


def caption_set(count: int, seed: int, kind: str) -> tuple[list[str], list[Stated]]:
    """`count` captions and what each states: partial, full, or full for held-out combinations.

    Raises:
        ValueError: the kind is not one of `KINDS`.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; available: {', '.join(KINDS)}")
    rng = torch.Generator().manual_seed(seed)
    scenes = sample_held_out(count, rng) if kind == "held out" else sample_scenes(count, rng)
    made = [(caption if kind == "partial" else full_caption)(scene, rng) for scene in scenes]
    return [text for text, _ in made], [stated for _, stated in made]


def accuracy(reading: Reading, stated: list[Stated]) -> Accuracy:
    """Compare what was read in images with what their captions state (B dicts)."""
    hits: dict[str, list[bool]] = {}
    for row, each in enumerate(stated):
        for name, values in each.items():
            hits.setdefault(name, []).append(reading.value(row, name) in values)
    per_attribute = {name: fmean(found) for name, found in sorted(hits.items())}
    return Accuracy(
        count=len(stated),
        asked={name: len(found) for name, found in sorted(hits.items())},
        per_attribute=per_attribute,
        stated=fmean(per_attribute.values()),
        all_stated=fmean(reading.shows(row, each) for row, each in enumerate(stated)),
        valid=float(reading.valid.float().mean()),
    )


def open_entropies(scenes: list[Scene], stated: Stated) -> dict[str, float]:
    """Entropy of each attribute that a prompt leaves open, over the scenes that were read and show its subject."""
    (subject,) = stated[SUBJECT]
    scenes = [scene for scene in scenes if scene.subject == subject]
    found = {}
    for name in SUBJECTS[subject].attributes:
        values = [scene.values[name] for scene in scenes if name in scene.values]
        if name not in stated:
            found[name] = entropy(values)
    return found


def world_entropies(stated: Stated, count: int = 400, seed: int = 0) -> dict[str, float]:
    """The same of the world itself: what a perfect model would draw."""
    rng = torch.Generator().manual_seed(seed)
    (subject,) = stated[SUBJECT]
    scenes: list[Scene] = []
    while len(scenes) < count:
        scenes += [
            scene
            for scene in sample_scenes(200, rng)
            if scene.subject == subject
            and all(scene.values.get(name) in values for name, values in stated.items() if name != SUBJECT)
        ]
    return open_entropies(scenes[:count], stated)


def prompt_entropy(generate: Generate, *, count: int, seed: int) -> dict[str, dict[str, float]]:
    """For each of `OPEN_PROMPTS`, the entropy of every open attribute over `count` images."""
    return {
        prompt: open_entropies(read(generate([prompt] * count, list(range(seed, seed + count)))).scenes, stated)
        for prompt, stated in OPEN_PROMPTS.items()
    }


def valid_entropy(generate: Generate, *, count: int, seed: int) -> dict[str, dict[str, float]]:
    """`prompt_entropy` over `count` valid images alone: what is read in a broken picture may be chance, not variety.

    Prompts with fewer valid images among `TRIES` times as many are left out.
    """
    found = {}
    for prompt, stated in OPEN_PROMPTS.items():
        scenes: list[Scene] = []
        for start in range(seed, seed + TRIES * count, count):
            reading = read(generate([prompt] * count, list(range(start, start + count))))
            scenes += [scene for scene, valid in zip(reading.scenes, reading.valid.tolist(), strict=True) if valid]
            if len(scenes) >= count:
                found[prompt] = open_entropies(scenes[:count], stated)
                break
    return found


def variety(found: dict[str, dict[str, float]], teacher: dict[str, dict[str, float]]) -> float:
    """The share of the teacher's entropy within a prompt, mean over prompts that both have and open attributes that
    vary in the teacher's pictures."""
    ratios = [
        min(1.0, found[prompt][name] / bits)
        for prompt, attributes in teacher.items()
        for name, bits in attributes.items()
        if prompt in found and bits > 0.2
    ]
    return fmean(ratios) if ratios else math.nan
