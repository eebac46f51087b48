"""Everything that lies in the folders of a report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.evaluate.sets.manifest import COST, NAME, Manifest, find_sets, read_manifest
from training.evaluate.sets.results import Result, read_result
from training.models.guidance.methods import Method, method_label

NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Collected:
    """sets: manifests by folder. costs: of the sets that have one. scores: rows of sets. removals: whole results.
    versions: of libraries, of each set and each result."""

    sets: dict[Path, Manifest] = field(default_factory=dict)
    costs: dict[Path, dict[str, Any]] = field(default_factory=dict)
    scores: list[Result] = field(default_factory=list)
    removals: list[Result] = field(default_factory=list)
    versions: list[dict[str, str]] = field(default_factory=list)


def collect(places: Iterable[Path]) -> Collected:
    """Sets of images and files of figures: in the places, and directly below.

    Raises:
        FileNotFoundError: a place holds none of them.
        ValueError: a manifest or a file of figures is damaged.
    """
    found, read = Collected(), set()
    for place in places:
        files = {path: _kind(path) for path in sorted({*place.glob("*.json"), *place.glob("*/*.json")})}
        sets = find_sets([place]) if any(path.name == NAME for path in files) else []
        if not sets and not any(files.values()):
            held = "no such folder" if not place.is_dir() else "none is in it or directly below"
            raise FileNotFoundError(
                f"nothing to report in {place} ({held}): expected images of `generate`, or what `score` and `removal` "
                "have written"
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
        row["title"] = titles.get(key, row["title"])  # a label may have been changed since
    return found


def ordered(rows: Iterable[Result]) -> list[Result]:
    """By title, then method, the plain images first."""
    return sorted(rows, key=lambda row: (row["title"], row["method"] != "none", *parsed(row["method"])))


def label(row: Result) -> str:
    """As the paper's rows are called: the title, and what was done to it."""
    return row["title"] + method_label(row["method"])


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
