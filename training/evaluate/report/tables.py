"""The tables of scores: the paper's numbers and the measured ones side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from training.evaluate.report.collect import NOT_RUN, Collected, label, ordered
from training.evaluate.report.markdown import table as markdown_table
from training.evaluate.report.paper import STYLES, TABLE_1, TABLE_2, TABLE_4_8, TABLE_5
from training.evaluate.sets.results import Result

Row = list[str]
NONE = "-"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a line of text below it for each of `notes`."""

    title: str
    head: Row
    rows: list[Row]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        rows = [[_in_markdown(cell) for cell in row] for row in self.rows]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"## {self.title}\n\n{markdown_table(self.head, rows)}{notes}"


def quality(found: Collected, *, everything: bool) -> Table:
    """Table 5: FID, CLIP score, precision, recall; empty if nothing was measured, unless `everything` is asked for."""
    names = ("FID", "CLIP", "precision", "recall")
    measured = [row for row in ordered(found.scores) if {"fid", "clip", "prc"} & row["scores"].keys()]

    def own(row: Result) -> Row:
        scores = row["scores"]
        prc = scores.get("prc", {})
        values = (_of(scores, "fid"), _of(scores, "clip"), prc.get("precision"), prc.get("recall"))
        return [_number(value, digits) for value, digits in zip(values, (2, 3, 3, 3), strict=True)]

    paper = _formatted(TABLE_5) if measured or everything else {}
    head = ["model", *(f"{name}, paper" for name in names), *(f"{name}, measured" for name in names), "images"]
    return Table(
        title="FID, CLIP score, precision and recall (Table 5)",
        head=head,
        rows=_beside(paper, measured, own, len(names)),
        notes=[*_shortfalls(measured, ("fid", "prc", "clip")), *_missing(found.scores, ("fid", "prc", "clip"))],
    )


def preference(found: Collected, *, everything: bool) -> list[Table]:
    """Tables 4 and 8: HPSv2, one table for each version."""
    versions = [v for v in ("v2.0", "v2.1") if any(f"hps-{v}" in row["scores"] for row in found.scores)]
    return [_preference(found, version) for version in versions or ([""] if everything else [])]


def _preference(found: Collected, version: str) -> Table:
    name = f"hps-{version}"
    measured = [row for row in ordered(found.scores) if name in row["scores"]]

    def own(row: Result) -> Row:
        score = row["scores"][name]
        styles = [score["styles"].get(style, {}).get("value") for style in STYLES]
        average = score["value"] if None in styles else fmean(styles)  # of the paper's four styles only
        return [_number(value, 2) for value in (*styles, average)]

    columns = [*STYLES.values(), "average"]
    return Table(
        title=f"HPSv2{f', {version}' if version else ''} (Tables 4 and 8)",
        head=["model", *(f"{c}, paper" for c in columns), *(f"{c}, measured" for c in columns), "images"],
        rows=_beside(_formatted(TABLE_4_8), measured, own, len(columns)),
        notes=[
            "The paper does not name its version of HPSv2; v2.0 and v2.1 cannot be compared with each other.",
            *_shortfalls(measured, ("hps",)),
            *_missing(found.scores, ("hps-v2.0", "hps-v2.1")),
        ],
    )


def other_scores(found: Collected) -> Table:
    """The scores of plug-ins."""
    known = {"fid", "prc", "clip", "hps-v2.0", "hps-v2.1"}
    rows = [
        [label(row), row["method"], name, _number(value["value"], 4), _number(value["standard_error"], 4)]
        for row in ordered(found.scores)
        for name, value in row["scores"].items()
        if name not in known
    ]
    head = ["model", "method", "score", "mean", "standard error"]
    return Table(title="Other scores", head=head, rows=rows)


def never_measured() -> list[Table]:
    """Tables 1 and 2, of teachers and of training runs, which these commands do not measure."""
    note = "FID of a teacher and of training runs, like Figure 2; no command here measures it."
    return [
        Table(
            title=title,
            head=["", "paper", "measured"],
            rows=[[name, f"{value:.2f}", NOT_RUN] for name, value in values.items()],
            notes=[note],
        )
        for title, values in (
            ("Guidance scale of the teacher (Table 1)", TABLE_1),
            ("Which teacher's scale is random (Table 2)", TABLE_2),
        )
    ]


def _beside(paper: dict[str, Row], measured: list[Result], own: Any, width: int) -> list[Row]:
    """The paper's rows, each with the measured values of the same name, then the other measured rows."""
    rows = []
    for name, values in paper.items():
        mine = [row for row in measured if label(row) == name]
        rows += [[_named(name, row), *values, *own(row), str(row["images"])] for row in mine]
        if not mine:
            rows.append([name, *values, *[NOT_RUN] * width, NONE])
    rest = [row for row in measured if label(row) not in paper]
    return rows + [[_named(label(row), row), *[NONE] * width, *own(row), str(row["images"])] for row in rest]


def _named(name: str, row: Result) -> str:
    """The name with the strength of the method, if it has one: there may be several."""
    return f"{name} ({row['method']})" if ":" in row["method"] else name


def _shortfalls(rows: list[Result], names: tuple[str, ...]) -> list[str]:
    texts = [row["shortfalls"][name] for row in rows for name in names if name in row["shortfalls"]]
    return [f"Not the paper's protocol: {text}." for text in dict.fromkeys(texts)]


def _missing(rows: list[Result], names: tuple[str, ...]) -> list[str]:
    reasons = [(name, row["not_run"][name]) for row in rows for name in names if name in row["not_run"]]
    return [f"{name}: {NOT_RUN}. {reason}" for name, reason in dict.fromkeys(reasons)]


def _formatted(values: dict[str, tuple[float, ...]]) -> dict[str, Row]:
    return {name: [f"{value:.2f}" for value in row] for name, row in values.items()}


def _of(scores: dict[str, Any], name: str) -> float | None:
    return scores[name]["value"] if name in scores else None


def _number(value: float | None, digits: int) -> str:
    return NOT_RUN if value is None else f"{value:.{digits}f}"


def _in_markdown(cell: str) -> str:
    """Escape a cell: prompts may hold line breaks and mark-up."""
    return " ".join(cell.split("\n")).replace("<", "&lt;").replace("|", "\\|")
