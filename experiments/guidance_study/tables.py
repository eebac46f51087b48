"""The study's tables and charts: `python -m experiments.guidance_study.tables` writes them into docs/STUDY.md again.

`results` is the content of docs/study.json; a run is one entry of its "runs".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.guidance_study.plots import TRAINING, curves, draw
from experiments.tables import fill_page
from training.evaluate.report.markdown import mean_and_range, share_with_interval, table

Results = dict[str, Any]
Run = dict[str, Any]
Value = Callable[[Run], float]


def final(key: str) -> Value:
    """The value of `key` for partial captions at the end of a run."""
    return lambda run: run["final"]["partial"][key]


def second_half(run: Run, key: str) -> list[float]:
    """The measurements of `key` in the second half of a run."""
    steps = sorted(map(int, run["curve"]))
    return [run["curve"][str(step)][key] for step in steps if 2 * step >= steps[-1]]


def level(key: str) -> Value:
    """The mean of `key` over the second half of a run."""
    return lambda run: fmean(second_half(run, key))


def fluctuation(key: str) -> Value:
    """The mean absolute change of `key` between successive measurements in the second half of a run."""

    def measure(run: Run) -> float:
        changes = [abs(late - early) for early, late in pairwise(second_half(run, key))]
        return fmean(changes) if changes else math.nan

    return measure


MEASURES: dict[str, Value] = {
    "stated right, at the end": final("stated"),
    "valid, at the end": final("valid"),
    "stated right, second half": level("stated"),
    "valid, second half": level("valid"),
    "fluctuation of stated right": fluctuation("stated"),
    "fluctuation of valid": fluctuation("valid"),
    "entropy within a prompt": final("entropy"),
}
COMPARISONS = {
    "PG-SB - SwiftBrush": ("pgsb", "swiftbrush"),
    "PG-SB - fixed 2.25": ("pgsb", "fixed"),
    "PG-SB - SwiftBrush with 5 LoRA updates": ("pgsb", "dmd2trick"),
    "U(3, 6) - fixed 4.5": ("pgsb-high", "swiftbrush"),
    "learning rate x 3: PG-SB - SwiftBrush": ("pgsb-fast", "swiftbrush-fast"),
}


def completed(results: Results, cell: str) -> list[Run]:
    """The runs of a cell that did not fail."""
    return [run for run in results["runs"] if run["cell"] == cell and not run["problem"]]


def differences(results: Results, one: str, other: str, value: Value) -> list[float]:
    """one - other for each seed that both cells have."""
    mine, theirs = ({run["seed"]: value(run) for run in completed(results, cell)} for cell in (one, other))
    return [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def differences_table(results: Results) -> str:
    """A star marks a difference that has the same sign with every seed, of two or more."""
    compared = {name: cells for name, cells in COMPARISONS.items() if set(cells) <= results["cells"].keys()}

    def cell(values: list[float]) -> str:
        same_sign = len(values) > 1 and (min(values) > 0 or max(values) < 0)
        return mean_and_range(values) + (" *" if same_sign else "")

    rows = [
        [name, *(cell(differences(results, *cells, value)) for cells in compared.values())]
        for name, value in MEASURES.items()
    ]
    return table(["measure", *compared], rows)


def final_table(results: Results) -> str:
    rows = []
    for cell, settings in results["cells"].items():
        runs = completed(results, cell)
        full = [run["final"]["full"]["stated"] for run in runs]
        partial = [[final(key)(run) for run in runs] for key in ("stated", "valid", "entropy")]
        rows.append([settings["title"], len(runs), *map(mean_and_range, [full, *partial])])
    for title, name in (("teacher, used in one step", "start"), ("teacher, 20 steps, cfg 3", "teacher")):
        rows.append([title, "", "", *(results[name][key] for key in ("stated", "valid", "entropy"))])
    return table(["cell", "runs", "stated right, full", "stated right, partial", "valid, partial", "entropy"], rows)


def stability_table(results: Results) -> str:
    half, rows = results["iterations"] / 2, []
    for cell, settings in results["cells"].items():
        runs = completed(results, cell)
        moves = [
            mean_and_range([of(key)(run) for run in runs]) for of in (level, fluctuation) for key in ("stated", "valid")
        ]
        between = [stdev(map(final(key), runs)) if len(runs) > 1 else "-" for key in ("stated", "valid")]
        late = [
            [fmean(values) for step, values in curves(results, cell, key) if step >= half and values]
            for key in TRAINING
        ]
        rows.append([settings["title"], *moves, *between, *(f"{fmean(means):.3g}" if means else "-" for means in late)])
    moves = ["stated right", "valid", "fluctuation, stated", "fluctuation, valid"]
    return table(["cell", *moves, "sd of seeds, stated", "sd of seeds, valid", *TRAINING.values()], rows)


def nasa_table(results: Results) -> str:
    shown = (("no_negative", "absent"), ("nasa", "absent"), ("nasa", "clean"), ("nasa", "kept"))
    rows = [
        [settings["title"]]
        + [mean_and_range([run["final"][method][key] for run in completed(results, cell)], 2) for method, key in shown]
        for cell, settings in results["cells"].items()
    ]
    return table(["cell", "absent, no negative", "absent, NASA", "clean, NASA", "kept, NASA"], rows)


def runs_table(results: Results) -> str:
    rows = []
    for run in results["runs"]:
        if run["problem"]:
            rows.append([run["cell"], run["seed"], "failed: " + run["problem"].replace("|", "/"), "", ""])
        else:
            count = results["protocol"]["captions"]
            rates = [share_with_interval(final(key)(run), count) for key in ("stated", "valid")]
            rows.append([run["cell"], run["seed"], *rates, final("entropy")(run)])
    return table(["cell", "seed", "stated right, partial", "valid, partial", "entropy"], rows)


def all_tables(results: Results) -> dict[str, str]:
    """Every table of docs/STUDY.md by its name there."""
    return {
        "differences": differences_table(results),
        "final": final_table(results),
        "stability": stability_table(results),
        "nasa": nasa_table(results),
        "runs": runs_table(results),
    }


def write(results: Results, page: Path) -> None:
    """Write the tables into the page, and its charts into images/ beside it."""
    draw(results, page.parent / "images", page.stem.lower())
    fill_page(page, all_tables(results))


if __name__ == "__main__":
    write(json.loads(Path("docs/study.json").read_text(encoding="utf-8")), Path("docs/STUDY.md"))
