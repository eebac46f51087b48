"""Measures the settings of a comparison, and continues one that was stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from experiments.methods.results import PLAIN, Comparison
from experiments.negatives.measure import count_removals
from experiments.negatives.settings import Protocol
from experiments.removal import Generate, Pair, World


def measure(
    world: World,
    found: dict[str, Any],
    protocols: dict[str, Protocol],
    generator: Callable[[str], Generate],
    save: Callable[[], None],
    needed: Callable[[Comparison], list[str]] = Comparison.needed,
) -> None:
    """Measure what is missing in `found`: all settings on the tuning seeds, then those that matter on others.

    Args:
        found: as in `Comparison`, with "pairs"; it is filled.
        generator: makes pictures with a setting, by its name; PLAIN is without the negative.
        save: called after each setting.
        needed: the settings to measure on the reporting seeds.
    """
    pairs = [Pair.from_json(row) for row in found["pairs"]]

    def run(part: str, names: list[str]) -> None:
        for name in tqdm([name for name in names if name not in found[part]], unit="setting", desc=part):
            found[part][name] = count_removals(world, generator(name), pairs, protocols[part], steer=name != PLAIN)
            save()

    run("tuning", [PLAIN, *(name for several in found["settings"].values() for name in several)])
    run("reporting", needed(Comparison(found)))
