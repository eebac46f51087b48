"""Markdown tables, and numbers with their uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from training.evaluate.judges.intervals import bootstrap, wilson


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; floats get three digits."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_and_range(values: Sequence[float], digits: int = 3) -> str:
    """Mean (smallest .. largest)."""
    if not values:
        return "-"
    mean, low, high = (f"{value:.{digits}f}" for value in (fmean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} .. {high})"


def mean_with_interval(values: Sequence[float], digits: int = 2) -> str:
    """Mean [low, high], with the 95 % bootstrap interval."""
    low, high = bootstrap(values)
    return f"{fmean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def share_with_interval(share: float, count: int) -> str:
    """Share [low, high], with the 95 % Wilson interval for that many cases."""
    low, high = wilson(share, count)
    return f"{share:.3f} [{low:.3f}, {high:.3f}]"
