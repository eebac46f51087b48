"""Everything that lies in the folders of a report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.evaluate.manifest import COST, NAME, Manifest, find_sets, read_manifest
from training.evaluate.results import Result, read_result
from training.steering import Method

_SUFFIX = {"none": "", "nasa": " + NASA", "cfg": " + CFG", "embeddings": " - embeddings", "nag": " + NAG"}
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Collected:
    """sets: manifests by folder. costs: of the sets that have one. scores: rows of sets. removals: whole results."""

    sets: dict[Path, Manifest] = field(default_factory=dict)
    costs: dict[Path, dict[str, Any]] = field(default_factory=dict)
    scores: list[Result] = field(default_factory=list)
    removals: list[Result] = field(default_factory=list)


def collect(places: Iterable[Path]) -> Collected:
    """Sets of images and files of figures: in the places, and directly below.

    Raises:
        FileNotFoundError: a place holds none of them.
        ValueError: a manifest or a file of figures is damaged.
    """
    found = Collected()
    for place in places:
        before = len(found.sets) + len(found.scores) + len(found.removals)
        for path in sorted({*place.glob("*.json"), *place.glob("*/*.json")}):
            kind = _kind(path)
            if kind == "scores":
                found.scores.extend(read_result(path, kind)["sets"])
            elif kind == "removal":
                found.removals.append(read_result(path, kind))
        if (place / NAME).is_file() or any(place.glob(f"*/{NAME}")):
            for folder in find_sets([place]):
                found.sets[folder] = read_manifest(folder)
                if (folder / COST).is_file():
                    found.costs[folder] = json.loads((folder / COST).read_text(encoding="utf-8"))
        if len(found.sets) + len(found.scores) + len(found.removals) == before:
            held = "no such folder" if not place.is_dir() else "none is in it or directly below"
            raise FileNotFoundError(
                f"nothing to report in {place} ({held}): expected images of `generate`, scores.json or removal.json"
            )
    return found


def ordered(rows: Iterable[Result]) -> list[Result]:
    """By title, then method, the plain images first."""
    return sorted(rows, key=lambda row: (row["title"], row["method"] != "none", *parsed(row["method"])))


def label(row: Result) -> str:
    """As the paper's rows are called: the title, and what was done to it."""
    return row["title"] + _SUFFIX.get(row["method"].partition(":")[0], f" {row['method']}")


def parsed(method: str) -> tuple[str, float]:
    """Name and strength."""
    try:
        known = Method.parse(method)
    except ValueError:  # of another program
        return method, 0.0
    return known.name, known.strength


def _kind(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # somebody else's file
