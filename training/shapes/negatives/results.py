"""What `training.shapes.negatives` wrote, to be read: shares by arm, over all pairs or some."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from training.steering import Method

PLAIN = "1 none"


@dataclass(frozen=True)
class Negatives:
    """`found` is the content of docs/data/negatives.json. An arm is called "1 nasa:0.5": its steps, its method."""

    found: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        return list(self.found["arms"])

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return self.found["pairs"]

    @property
    def images(self) -> int:
        """Of each pair, in all blocks of seeds."""
        return self.found["protocol"]["images"] * len(self.found["protocol"]["seeds"])

    def shares(self, arm: str, key: str) -> list[float]:
        """Of every pair: the share of its images, or for "entropy" bits."""
        rows = self.found["arms"][arm][key]
        return rows if key == "entropy" else [sum(blocks) / self.images for blocks in zip(*rows, strict=True)]

    def share(self, arm: str, key: str) -> float:
        return fmean(self.shares(arm, key))

    def blocks(self, arm: str, key: str) -> list[float]:
        """The mean over the pairs in each block of seeds."""
        return [fmean(row) / self.found["protocol"]["images"] for row in self.found["arms"][arm][key]]

    @cached_property
    def lower_half(self) -> list[int]:
        """The pairs whose unwanted value is drawn most without a negative (as Table 3); ties keep their order."""
        before = self.shares(PLAIN, "absent")
        order = sorted(range(len(before)), key=lambda n: before[n])
        return sorted(order[: max(1, len(order) // 2)])

    def strengths(self, name: str, steps: int = 1) -> dict[float, str]:
        """The arms of a method by strength."""
        of = {arm: Method.parse(arm.partition(" ")[2]) for arm in self.arms if arm.startswith(f"{steps} ")}
        return {method.strength: arm for arm, method in of.items() if method.name == name}

    def best(self, name: str) -> str:
        """The one-step arm of a method with the most clean removals."""
        return max(self.strengths(name).values(), key=lambda arm: self.share(arm, "clean"))
