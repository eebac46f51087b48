"""Tables 3 and 7: what a negative removes, pair by pair, in one step and in four."""

from __future__ import annotations

from experiments.negatives.results import PLAIN, Negatives
from experiments.shapes.measure import SHARES
from training.evaluate.report.markdown import mean_and_range, mean_with_interval, table


def _arms(found: Negatives, alpha: float) -> dict[str, tuple[str, str]]:
    """(without the negative, with NASA) by number of steps."""
    return {
        "one step": (PLAIN, found.strengths("nasa")[alpha]),
        "four steps": ("4 none", found.strengths("nasa", 4)[alpha]),
    }


def pairs_table(found: Negatives, alpha: float) -> str:
    """One row per pair of prompt and negative."""
    arms = _arms(found, alpha)
    rows = [
        [pair["prompt"], pair["negative"]]
        + [
            f"{found.shares(before, key)[n]:.2f} -> {found.shares(after, key)[n]:.2f}"
            for before, after in arms.values()
            for key in ("absent", "clean")
        ]
        + [found.shares(arms["one step"][1], "kept")[n]]
        for n, pair in enumerate(found.pairs)
    ]
    columns = [f"{key}, {name}" for name in arms for key in ("absent", "clean")]
    return table(["prompt", "negative", *columns, "kept, one step"], rows)


def means_table(found: Negatives, alpha: float) -> str:
    """Means over the pairs."""
    rows = [
        [
            f"{steps}, {name}",
            *(mean_with_interval(found.shares(arm, key)) for key in SHARES),
            mean_and_range(found.blocks(arm, "absent")),
        ]
        for steps, arms in _arms(found, alpha).items()
        for name, arm in zip(("no negative", "NASA"), arms, strict=True)
    ]
    return table(["", *SHARES, "absent by block"], rows)
