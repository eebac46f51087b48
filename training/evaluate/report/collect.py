"""Reads everything in the folders of a report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.evaluate.sets.manifest import COST, NAME, Manifest, find_sets, read_manifest
from training.evaluate.sets.results import Result, kind_of, read_result
from training.models.guidance.methods import Method, method_label

NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Collected:
    """All results. scores: one for each set of images. versions: of libraries, one for each set and file of results."""

    sets: dict[Path, Manifest] = field(default_factory=dict)
    costs: dict[Path, dict[str, Any]] = field(default_factory=dict)
    scores: list[Result] = field(default_factory=list)
    removals: list[Result] = field(default_factory=list)
    versions: list[dict[str, str]] = field(default_factory=list)


def collect(places: Iterable[Path]) -> Collected:
    """Read the sets of images and the files of results in the places and directly below them.

    Raises:
        FileNotFoundError: a place has neither.
        ValueError: a manifest or a file of results is damaged.
    """
    found, read = Collected(), set()
    for place in places:
        files = {path: kind_of(path) for path in sorted({*place.glob("*.json"), *place.glob("*/*.json")})}
        sets = find_sets([place]) if any(path.name == NAME for path in files) else []
        if not sets and not any(files.values()):
            reason = "no such folder" if not place.is_dir() else "not in it and not directly below"
            raise FileNotFoundError(
                f"nothing to report in {place} ({reason}): expected images of `generate`, or results of `score` or "
                "`removal`"
            )
        for folder in sets:
            found.sets[folder] = read_manifest(folder)
            found.versions.append(found.sets[folder].versions)
            if (folder / COST).is_file():
                found.costs[folder] = json.loads((folder / COST).read_text(encoding="utf-8"))
        for path in (path for path in files if path not in read):
            if files[path] not in ("scores", "removal"):
                continue
            result = read_result(path, files[path])
            found.versions.append(result["versions"])
            if files[path] == "scores":
                found.scores.extend(result["sets"])
            else:
                found.removals.append(result)
        read |= files.keys()
    titles = {(str(f), m.method, m.setup(), m.prompts()): m.title for f, m in found.sets.items()}
    for row in (*found.scores, *(row for result in found.removals for row in result["sets"])):
        key = tuple(row[name] for name in ("folder", "method", "setup", "prompts"))
        row["title"] = titles.get(key, row["title"])  # it may have been changed since
    return found


def ordered(rows: Iterable[Result]) -> list[Result]:
    """Sorted by title, then method; images without a negative first."""
    return sorted(rows, key=lambda row: (row["title"], row["method"] != "none", *parsed(row["method"])))


def label(row: Result) -> str:
    """The name of a row as in the paper: the title and the method."""
    return row["title"] + method_label(row["method"])


def parsed(method: str) -> tuple[str, float]:
    """Name and strength of a method."""
    try:
        known = Method.parse(method)
    except ValueError:  # a method of another program
        return method, 0.0
    return known.name, known.strength
