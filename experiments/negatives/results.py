"""Reads what `experiments.negatives` wrote: shares by arm, pair and block of seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from experiments.negatives.settings import arms

PLAIN = "1 none"


@dataclass(frozen=True)
class Negatives:
    """`found` is the content of docs/data/negatives.json. The arm "1 nasa:0.5" is one step of NASA at 0.5.

    fixed: only the fixed pairs, or only the modal ones; None: all.
    """

    found: dict[str, Any]
    fixed: bool | None = None

    def only(self, *, fixed: bool) -> Negatives:
        return replace(self, fixed=fixed)

    def _mine(self, values: list[Any]) -> list[Any]:
        """Those of `values`, one for each pair, that belong to the pairs looked at."""
        rows = zip(values, self.found["pairs"], strict=True)
        return [value for value, pair in rows if self.fixed is None or pair["fixed"] == self.fixed]

    @property
    def protocol(self) -> dict[str, Any]:
        return self.found["protocol"]

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return self._mine(self.found["pairs"])

    @property
    def images(self) -> int:
        """Images per pair, in all blocks of seeds."""
        return self.protocol["images"] * len(self.protocol["seeds"])

    def shares(self, arm: str, key: str) -> list[float]:
        """For each pair: the share of its images; bits for "entropy"."""
        rows = self.found["arms"][arm][key]
        return self._mine(
            rows if key == "entropy" else [sum(blocks) / self.images for blocks in zip(*rows, strict=True)]
        )

    def share(self, arm: str, key: str) -> float:
        return fmean(self.shares(arm, key))

    def blocks(self, arm: str, key: str) -> list[float]:
        """The mean over the pairs in each block of seeds."""
        return [fmean(self._mine(row)) / self.protocol["images"] for row in self.found["arms"][arm][key]]

    def gain(self, arm: str, key: str, other: str = PLAIN) -> list[float]:
        """For each pair: the share in `arm` minus that in `other`."""
        return [one - two for one, two in zip(self.shares(arm, key), self.shares(other, key), strict=True)]

    def strengths(self, name: str, steps: int = 1) -> dict[float, str]:
        """The measured arms of a method by strength, in ascending order; only those that `arms` still lists."""
        found = [arm for arm in arms() if arm.steps == steps and arm.method.name == name]
        measured = {arm.method.strength: str(arm) for arm in found if str(arm) in self.found["arms"]}
        return dict(sorted(measured.items()))

    def best(self, name: str, steps: int = 1) -> str:
        """The arm of a method with the most clean removals; among equals, the one that removes most."""
        return max(
            self.strengths(name, steps).values(), key=lambda arm: (self.share(arm, "clean"), self.share(arm, "absent"))
        )
