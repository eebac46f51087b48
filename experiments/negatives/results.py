"""What `experiments.negatives` wrote, to be read: shares by arm, over all pairs or some."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from experiments.negatives.settings import Arm, arms

PLAIN = "1 none"


@dataclass(frozen=True)
class Negatives:
    """`found` is the content of docs/data/negatives.json. An arm is called "1 nasa:0.5": its steps, its method."""

    found: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        return self.found["protocol"]

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return self.found["pairs"]

    @property
    def images(self) -> int:
        """Of each pair, in all blocks of seeds."""
        return self.protocol["images"] * len(self.protocol["seeds"])

    def shares(self, arm: str, key: str) -> list[float]:
        """Of every pair: the share of its images, or for "entropy" bits."""
        rows = self.found["arms"][arm][key]
        return rows if key == "entropy" else [sum(blocks) / self.images for blocks in zip(*rows, strict=True)]

    def share(self, arm: str, key: str) -> float:
        return fmean(self.shares(arm, key))

    def blocks(self, arm: str, key: str) -> list[float]:
        """The mean over the pairs in each block of seeds."""
        return [fmean(row) / self.protocol["images"] for row in self.found["arms"][arm][key]]

    def gain(self, arm: str, key: str, other: str = PLAIN) -> list[float]:
        """Of every pair: the share in `arm` minus that in another."""
        return [one - two for one, two in zip(self.shares(arm, key), self.shares(other, key), strict=True)]

    def lower_half(self, plain: str = PLAIN) -> list[int]:
        """The pairs whose unwanted value is drawn most without a negative (as Table 3); none where ties hide which."""
        before = self.shares(plain, "absent")
        order = sorted(range(len(before)), key=lambda n: before[n])
        cut = len(order) // 2
        return sorted(order[:cut]) if before[order[cut - 1]] < before[order[cut]] else []

    def strengths(self, name: str, steps: int = 1) -> dict[float, str]:
        """The measured arms of a method by strength, rising; of what `arms` lists today."""
        found = [arm for arm in arms() if arm.steps == steps and arm.method.name == name]
        return {a.method.strength: str(a) for a in sorted(found, key=_strength) if str(a) in self.found["arms"]}

    def best(self, name: str, steps: int = 1) -> str:
        """The arm of a method with the most clean removals, of equals the one that removes most."""
        return max(
            self.strengths(name, steps).values(), key=lambda arm: (self.share(arm, "clean"), self.share(arm, "absent"))
        )


def _strength(arm: Arm) -> float:
    return arm.method.strength
