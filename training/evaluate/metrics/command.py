"""`score`: FID, precision and recall, CLIP score and HPSv2 of images, and whatever a plug-in measures.

What cannot be measured for want of weights or a library is told, and written down as not run; the rest is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.evaluate.metrics.distribution import Distribution
from training.evaluate.metrics.plugins import Plugin
from training.evaluate.metrics.text_fit import ClipScore, Hps
from training.evaluate.metrics.weights import NotRun
from training.evaluate.paper_protocol import shortfalls
from training.evaluate.sets.image_files import check_images
from training.evaluate.sets.manifest import Manifest, find_sets, read_manifest
from training.evaluate.sets.results import SCORES, Result, about_set, read_result, write_result

Measure = Callable[[Path, Manifest], dict[str, Any]]


def score(args: argparse.Namespace) -> int:
    """The command; see `training.evaluate.cli`.

    Returns:
        0, or 2 when nothing at all could be measured.

    Raises:
        OSError, ValueError: what is wrong, in words for the user; of the set that it was met in, nothing was written.
    """
    sets = {folder: read_manifest(folder) for folder in find_sets(args.folders)}
    for folder, manifest in sets.items():
        check_images(folder, manifest)
    out = args.out or args.folders[0] / SCORES
    before = read_result(out, "scores")["sets"] if out.is_file() else []
    measures = metrics(args)
    absent: dict[str, str] = {}
    measured: list[Result] = []
    for folder, manifest in sets.items():
        measured.append(measure_set(folder, manifest, measures, absent))
        # at once: a set may take hours, and the next one may fail
        write_result(out, "scores", {"protocol": args.protocol, "sets": merged(before, measured)})
    for name, reason in absent.items():
        print(f"not run: {name}: {reason}", file=sys.stderr)
    print(said(measured))
    print(out, file=sys.stderr)
    return 0 if any(row["scores"] for row in measured) else 2


def metrics(args: argparse.Namespace) -> dict[str, Measure]:
    """What a command line asks for, by name; loads nothing yet.

    Raises:
        ValueError: a plug-in is not known.
    """
    distribution = Distribution(args)
    known: dict[str, Measure] = {"fid": distribution.fid, "prc": distribution.prc, "clip": ClipScore(args)}
    known |= {f"hps-{version}": Hps(args, version) for version in ("v2.0", "v2.1")}
    return {name: known[name] for name in args.metrics} | {name: Plugin(args, name) for name in args.plugins}


def measure_set(folder: Path, manifest: Manifest, measures: dict[str, Measure], absent: dict[str, str]) -> Result:
    """All scores of one set. `absent`: what cannot run, and why; is not tried twice."""
    scores: dict[str, Any] = {}
    for name, measure in measures.items():
        if name in absent:
            continue
        try:
            scores[name] = measure(folder, manifest)
        except NotRun as error:
            absent[name] = str(error)
    groups = dict(Counter(row.group for row in manifest.images))
    return about_set(folder, manifest) | {"groups": groups, "scores": scores, "not_run": dict(absent)}


def merged(before: list[Result], now: list[Result]) -> list[Result]:
    """Measured now, and what was measured before of the same images by other metrics."""
    kept = []
    for row in now:
        old = next((b for b in before if b.get("digest") == row["digest"]), None)
        if old is not None:
            row = row | {"scores": old["scores"] | row["scores"]}
            row["not_run"] = {k: v for k, v in (old["not_run"] | row["not_run"]).items() if k not in row["scores"]}
        kept.append(row | {"shortfalls": shortfalls(row["groups"], row["scores"])})
    again = {row[key] for row in now for key in ("folder", "digest")}
    return [b for b in before if not again & {b["folder"], b.get("digest")}] + kept


def said(rows: list[Result]) -> str:
    """A line each set."""
    lines = []
    for row in rows:
        parts = []
        for name, value in row["scores"].items():
            if name == "prc":
                parts += [f"precision {value['precision']:.3f}", f"recall {value['recall']:.3f}"]
            else:
                parts.append(f"{name} {value['value']:.4g}")
        lines.append(f"{row['method']:24s} {row['images']} images  " + ("  ".join(parts) or "nothing measured"))
    return "\n".join(lines)
