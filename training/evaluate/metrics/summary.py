"""Summary statistics of the scores of many images."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """The mean and its standard error, over prompts and noise (not over trainings)."""
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {"value": fmean(values), "standard_error": error, "images": len(values)}


def styles_of(values: Sequence[float], groups: Sequence[str], size: int) -> dict[str, dict[str, Any]]:
    """HPSv2's table: the mean of each style, and the standard deviation of the means of `size` consecutive images."""
    found = {}
    for group in dict.fromkeys(groups):
        own = [value for value, name in zip(values, groups, strict=True) if name == group]
        means = [fmean(own[n : n + size]) for n in range(0, len(own), size)]
        found[group] = {"value": fmean(own), "spread": stdev(means) if len(means) > 1 else None, "images": len(own)}
    return found
