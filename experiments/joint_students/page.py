"""The tables and pictures of docs/JOINT_ATTENTION.md that compare formulas on pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch

from experiments.joint_students.settings import ABSENT, KEPT
from experiments.json_file import read_json
from experiments.methods.page import KEYS, cells
from experiments.methods.results import PLAIN, Comparison
from experiments.negatives.sheets import contact_sheet
from experiments.removal import Generate
from experiments.tables import fill_page
from training.evaluate.judges.intervals import bootstrap
from training.evaluate.report.markdown import mean_with_interval, table

_RIVALS = ("NAG", "VSF")


def fill(page: Path, data: Path) -> None:
    """Fill the page's tables "joint", "joint-kinds" and "joint-padding" with all files of results."""
    files = sorted(data.glob("joint-*.json"))
    found = {(each["network"], each["steps"]): Comparison(each) for each in map(read_json, files)}
    fill_page(page, {"joint": compared(found), "joint-kinds": kinds(found), "joint-padding": padding(found)})


def compared(several: dict[tuple[str, int], Comparison]) -> str:
    """Each method at the setting that it was tuned to, on the reporting seeds."""
    rows = []
    for (network, steps), found in several.items():
        title = f"{network}, {steps} step{'s' * (steps > 1)}"
        rows.append([title, "none", "", *cells(found, PLAIN), "", ""])
        for method in found.found["settings"]:
            name = found.chosen(method)
            verdict = _bars(found, name) if method not in _RIVALS else ""
            lead = mean_with_interval(leads(found, name))
            rows.append([title, method, name.partition(", ")[2], *cells(found, name), lead, verdict])
    head = ["student", "negative by", "chosen", *KEYS, "entropy", "lead over the better of NAG and VSF", "bars"]
    return table(head, rows)


def kinds(several: dict[tuple[str, int], Comparison]) -> str:
    """Fixed and modal pairs apart, each method at its one setting."""
    rows = []
    for (network, steps), found in several.items():
        fixed = [pair["fixed"] for pair in found.found["pairs"]]
        for name in (PLAIN, *map(found.chosen, found.found["settings"])):
            absent, clean = (found.shares("reporting", name, key) for key in ("absent", "clean"))
            parts = [
                [value for value, each in zip(column, fixed, strict=True) if each is kind]
                for kind, columns in ((True, (absent, clean, leads(found, name))), (False, (absent, clean)))
                for column in columns
            ]
            means = [mean_with_interval(part) if part else "" for part in parts]
            rows.append([f"{network}, {steps}", name.partition(", ")[0], *means])
    head = ["student, steps", "negative by", "absent, fixed", "clean, fixed", "lead in clean, fixed"]
    return table([*head, "absent, modal", "clean, modal"], rows)


def padding(several: dict[tuple[str, int], Comparison]) -> str:
    """The best setting with the padded, and with the trimmed negative."""
    rows = []
    for (network, steps), found in several.items():
        for method in found.found["settings"]:
            names = [found.chosen(method, ending=ending) for ending in ("padded", "trimmed")]
            shares = [mean_with_interval(found.shares("reporting", each, key)) for key in KEYS[::3] for each in names]
            one, other = (found.shares("reporting", each, "clean") for each in names)
            gain = mean_with_interval([b - a for a, b in zip(one, other, strict=True)])
            rows.append([f"{network}, {steps}", method, *shares, gain])
    head = ["student, steps", "negative by", "absent, padded", "absent, trimmed", "clean, padded", "clean, trimmed"]
    return table([*head, "gain in clean by trimming"], rows)


def best_rival(found: Comparison) -> str:
    """The chosen setting of NAG or VSF with more clean removals on the reporting seeds."""
    return max(map(found.chosen, _RIVALS), key=lambda name: fmean(found.shares("reporting", name, "clean")))


def leads(found: Comparison, name: str) -> list[float]:
    """For each pair: the clean removals of a setting minus those of the best rival."""
    pairs = zip(*(found.shares("reporting", each, "clean") for each in (name, best_rival(found))), strict=True)
    return [one - two for one, two in pairs]


def _bars(found: Comparison, name: str) -> str:
    """Which bars a setting does not reach."""
    missed = [
        f"{key} < {bar:g}"
        for key, bar in (("absent", ABSENT), ("kept", KEPT))
        if fmean(found.shares("reporting", name, key)) < bar
    ]
    if bootstrap(leads(found, name))[1] < 0:
        missed.append("worse than the rival")
    return ", ".join(missed) or "reached"


def write_pictures(found: Comparison, generator: Callable[[str], Generate], path: Path) -> None:
    """A contact sheet: a row of its own seed for each fixed and every fourth modal pair.

    In it no negative, then each method at its chosen setting.
    """
    pairs = found.found["pairs"]
    shown = [pair for pair in pairs if pair["fixed"]] + [pair for pair in pairs if not pair["fixed"]][::4]
    first = found.found["protocols"]["reporting"]["seeds"][0]
    names = [PLAIN, *map(found.chosen, found.found["settings"])]
    rows = [
        (
            f"{pair['prompt']}  -  {pair['negative']}",
            torch.cat([generator(name)([pair["prompt"]], [first + n], pair["negative"]) for name in names]),
        )
        for n, pair in enumerate(shown)
    ]
    contact_sheet(rows, path, ["no negative", *found.found["settings"]])
