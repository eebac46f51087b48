"""Reads what a comparison measured: which setting is chosen for each method, and what it does on other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from experiments.methods.settings import choose

PLAIN = "none"


@dataclass(frozen=True)
class Comparison:
    """`found` is the content of docs/data/methods.json, or of a file like it.

    Its "settings" are the names of the settings by method; its parts "tuning" and "reporting" have the counts of images
    by setting.
    """

    found: dict[str, Any]

    @property
    def groups(self) -> list[str]:
        """The part of the world that each pair belongs to."""
        return [pair["group"] for pair in self.found["pairs"]]

    def shares(self, part: str, setting: str, key: str) -> list[float]:
        """For each pair, the share of its images; bits for "entropy"."""
        rows = self.found[part][setting][key]
        if key == "entropy":
            return rows
        images = self.found["protocols"][part]["images"] * len(self.found["protocols"][part]["seeds"])
        return [sum(blocks) / images for blocks in zip(*rows, strict=True)]

    def chosen(self, method: str, pairs: Sequence[int] | None = None, *, ending: str = "") -> str:
        """The setting of a method by the rule, on the tuning seeds of these pairs; of all by default.

        Args:
            ending: only settings whose names end so.
        """
        names = [name for name in self.found["settings"][method] if name.endswith(ending)]
        kept, clean = (
            {name: fmean(self._of(self.shares("tuning", name, key), pairs)) for name in names}
            for key in ("kept", "clean")
        )
        return choose(kept, clean)

    def _of(self, values: list[float], pairs: Sequence[int] | None) -> list[float]:
        return values if pairs is None else [values[n] for n in pairs]

    def chosen_elsewhere(self, method: str) -> list[str]:
        """For each pair: the setting that is chosen on the pairs of the world's other parts."""
        groups = self.groups
        by_group = {
            each: self.chosen(method, [n for n, other in enumerate(groups) if other != each])
            for each in dict.fromkeys(groups)
        }
        return [by_group[each] for each in groups]

    def held_out(self, method: str, key: str) -> list[float]:
        """For each pair: its share on the reporting seeds, with the setting of `chosen_elsewhere`."""
        return [
            self.shares("reporting", setting, key)[pair] for pair, setting in enumerate(self.chosen_elsewhere(method))
        ]

    def needed(self) -> list[str]:
        """The settings that are measured on the reporting seeds."""
        methods = self.found["settings"]
        elsewhere = chain.from_iterable(map(self.chosen_elsewhere, methods))
        return list(dict.fromkeys([PLAIN, *map(self.chosen, methods), *elsewhere]))
