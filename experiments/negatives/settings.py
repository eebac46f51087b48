"""The methods and strengths that are compared, and how many images are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from training.models.guidance.methods import Method

# From no visible effect to broken pictures; found on other seeds.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "nasa": (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0),
    "cfg": (1.5, 3.0, 4.5, 7.5),
    "embeddings": (0.1, 0.25, 0.5, 0.75, 1.0, 1.5),
    "nag": (1.0, 2.0, 4.0, 8.0, 16.0),
    "vsf": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    "orthogonal": (0.25, 0.5, 1.0, 1.5, 2.0, 3.0),
}
TITLES = {
    "nasa": "NASA",
    "cfg": "CFG",
    "embeddings": "embedding subtraction",
    "nag": "NAG",
    "vsf": "VSF",
    "orthogonal": "orthogonal NASA",
}
FOUR_STEPS = (999, 749, 499, 249)  # the paper's SDXL-DMD2
FOUR_STEP_METHODS = ("none", "nasa:0.25", "nasa:0.5", "nasa:0.75", "nasa:1")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Numbers of images. Pairs are found on other seeds than they are measured on."""

    pairs_per_group: int = 2
    pair_images: int = 50  # per prompt, to find the pairs
    pair_seed: int = 50_000
    images: int = 25  # per pair and block of seeds
    seeds: tuple[int, ...] = (90_000, 91_000, 92_000, 93_000)  # the first of each block


@dataclass(frozen=True)
class Arm:
    """A method with its strength, in one step or four."""

    steps: int
    method: Method

    def __str__(self) -> str:
        return f"{self.steps} {self.method}"


def arms() -> Iterator[Arm]:
    """All arms, the most needed first."""
    yield Arm(1, Method("none"))
    for name, strengths in STRENGTHS.items():
        yield from (Arm(1, Method(name, strength)) for strength in strengths)
    yield from (Arm(len(FOUR_STEPS), Method.parse(text)) for text in FOUR_STEP_METHODS)
