"""The tables of removal: Tables 3 and 7 with the measured results, and all shares of each method."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from training.evaluate.judges.removal import SHARES, lower_half, share_text
from training.evaluate.report.collect import NOT_RUN, Collected, label, ordered
from training.evaluate.report.paper import TABLE_7
from training.evaluate.report.tables import NONE, Row, Table
from training.evaluate.sets.pairs import PAIRS
from training.evaluate.sets.results import Result


def removal_tables(found: Collected, *, everything: bool) -> list[Table]:
    """The paper's pairs, if they were judged or `everything` is asked for, and all results of each judge."""
    six = [(pair.positive, pair.negative) for pair in PAIRS["paper"]]
    of_paper = [r for r in found.removals if [(p["positive"], p["negative"]) for p in r["pairs"]] == six]
    tables = [_beside_the_paper(result) for result in of_paper or ([None] if everything else [])]
    for result in found.removals:
        tables += [_means(result), _by_pair(result)]
    return tables


def _beside_the_paper(result: Result | None) -> Table:
    """Share of absent, before -> after, in percent."""
    steered = [] if result is None else [row for row in ordered(result["sets"]) if row["digest"] != row["before"]]
    head = ["prompt", "negative", *(f"{name}, paper" for name in TABLE_7)]
    head += [f"{label(row)} ({row['method']}), measured" for row in steered] or ["measured"]
    rows = [
        [pair.positive, pair.negative, *(f"{b} -> {a}" for b, a in (values[n] for values in TABLE_7.values()))]
        + ([_before_after(result, row, lambda r, n=n: r["pairs"][n]) for row in steered] or [NOT_RUN])
        for n, pair in enumerate(PAIRS["paper"])
    ]
    for name in ("lower", "all"):
        paper = []
        for values in TABLE_7.values():
            lower = lower_half([{"absent": {"share": before}} for before, _ in values])
            chosen = [values[n] for n in (lower if name == "lower" else range(len(values)))]
            paper.append(" -> ".join(f"{fmean(column):.0f}" for column in zip(*chosen, strict=True)))
        title = "mean, the three with most to remove (Table 3)" if name == "lower" else "mean, all six"
        own = [_before_after(result, row, lambda r, name=name: r["means"][name]) for row in steered] or [NOT_RUN]
        rows.append([title, "", *paper, *own])
    note = "" if result is None else f"Measured: judged by {_judge(result)}; the paper's: by people, 100 images a pair."
    return Table(
        title="Removal of what the negative names, before -> after, percent (Tables 3 and 7)",
        head=head,
        rows=rows,
        notes=[note] if note else [],
    )


def _means(result: Result) -> Table:
    lower = len(result["sets"][0]["lower"])
    head = ["model", "method", "images", *SHARES, *(f"{name}, most to remove" for name in SHARES)]
    rows = [
        [row["title"], row["method"], str(row["means"]["all"]["images"])]
        + [_share(row["means"][which][name]) for which in ("all", "lower") for name in SHARES]
        for row in ordered(result["sets"])
    ]
    return Table(
        title=f"Removal, judged by {_judge(result)}",
        head=head,
        rows=rows,
        notes=[
            "Absent: what the negative names is not in the image. Kept: what the prompt asks for is. Valid: the image "
            f"is not broken. Clean: all three. Means over {len(result['pairs'])} pairs, and over the {lower} with most "
            "to remove, which have the lowest share of absent without a negative (the first of equal ones); in "
            "brackets 95 % Wilson intervals over all these images.",
        ],
    )


def _by_pair(result: Result) -> Table:
    sets = ordered(result["sets"])
    several = len({row["title"] for row in sets}) > 1
    names = [f"{row['title']}, {row['method']}" if several else row["method"] for row in sets]
    head = ["prompt", "negative", *(f"{name}: absent, clean" for name in names)]
    rows: list[Row] = [
        [pair["positive"], pair["negative"]]
        + [f"{_plain(row['pairs'][n]['absent'])}, {_plain(row['pairs'][n]['clean'])}" for row in sets]
        for n, pair in enumerate(result["pairs"])
    ]
    return Table(title=f"Pair by pair, judged by {_judge(result)}", head=head, rows=rows)


def _before_after(result: Result, row: Result, part: Any) -> str:
    before = next(r for r in result["sets"] if r["digest"] == row["before"])
    one, other = (part(r)["absent"] for r in (before, row))
    return f"{_percent(one)} -> {_percent(other)}"


def _percent(value: dict[str, float]) -> str:
    return f"{100 * value['share']:.0f} [{100 * value['low']:.0f},\u00a0{100 * value['high']:.0f}]"


def _share(value: dict[str, float] | None) -> str:
    return share_text(value).replace(", ", ",\u00a0")


def _plain(value: dict[str, float] | None) -> str:
    return NONE if value is None else f"{value['share']:.2f}"


def _judge(result: Result) -> str:
    judge = result["judge"]
    more = f" ({judge['model']}, {judge['weights'] or 'its own weights'})" if "model" in judge else ""
    people = f", {judge['people']} of them" if "people" in judge else ""
    return f"{judge['name']}{more}{people}"
