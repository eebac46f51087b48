"""How the study judges the pictures of each small world: with captions, noise and reading of its `evaluate`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.avatars import measure as avatars
from experiments.avatars.world import AVATARS
from experiments.removal import Generate, Pair, World, modal_pairs
from experiments.shapes import measure as shapes
from experiments.shapes.evaluate import CAPTION_SEED, NOISE_SEED, OPEN
from experiments.shapes.world import SHAPES
from training.prompts.avatars.rules import WEIGHTS, read


@dataclass(frozen=True, kw_only=True)
class Measures:
    """
    quality: (model, number of captions, their kind) -> shares of stated-right and of valid pictures.
    entropy: (model, pictures a prompt) -> bits, mean over prompts and the attributes that they leave open.
    pairs: (model, modal pairs of a part of the world, pictures to find them) -> pairs for negative prompts; without it,
        the fixed pairs of the world.
    reader: weights of the networks that read its pictures.
    """

    world: World
    quality: Callable[[Generate, int, str], tuple[float, float]]
    entropy: Callable[[Generate, int], float]
    pairs: Callable[[Generate, int, int], list[Pair]] | None = None
    reader: Path | None = None

    @property
    def about(self) -> dict[str, str]:
        """What figures depend on besides the world's name: figures by another reader do not count."""
        return {} if self.reader is None else {"reader": sha256(self.reader)}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _seeds(count: int) -> list[int]:
    return list(range(NOISE_SEED, NOISE_SEED + count))


def _shapes_quality(generate: Generate, captions: int, kind: str) -> tuple[float, float]:
    texts, stated = shapes.caption_set(captions, CAPTION_SEED, kind)
    row = shapes.accuracy(generate(texts, _seeds(captions)), stated)
    return row.stated, row.valid


def _shapes_entropy(generate: Generate, count: int) -> float:
    return fmean(shapes.prompt_entropy(generate, list(OPEN), count=count, seed=NOISE_SEED).values())


def _avatars_quality(generate: Generate, captions: int, kind: str) -> tuple[float, float]:
    texts, stated = avatars.caption_set(captions, CAPTION_SEED, kind)
    row = avatars.accuracy(read(generate(texts, _seeds(captions))), stated)
    return row.stated, row.valid


def _avatars_entropy(generate: Generate, count: int) -> float:
    found = avatars.prompt_entropy(generate, count=count, seed=NOISE_SEED)
    return fmean(fmean(attributes.values()) for attributes in found.values())


MEASURES = {
    "shapes": Measures(
        world=SHAPES,
        quality=_shapes_quality,
        entropy=_shapes_entropy,
        pairs=lambda generate, per_group, count: modal_pairs(SHAPES, generate, per_group=per_group, count=count),
    ),
    # All students draw the unwanted things of the fixed pairs often enough, so all are measured on the same pairs.
    "avatars": Measures(
        world=AVATARS,
        quality=_avatars_quality,
        entropy=_avatars_entropy,
        reader=WEIGHTS,
    ),
}
