"""The command `score`: FID, precision and recall, CLIP score, HPSv2 and plug-ins for folders of images.

A metric whose weights or library are missing is reported and recorded as not run; the other metrics still run.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.evaluate.metrics.batching import choose_device
from training.evaluate.metrics.distribution import Distribution
from training.evaluate.metrics.plugins import Plugin
from training.evaluate.metrics.text_fit import ClipScore, Hps
from training.evaluate.metrics.weights import NotRun
from training.evaluate.paper_protocol import shortfalls
from training.evaluate.sets.image_files import check_images
from training.evaluate.sets.manifest import Manifest, find_sets, read_manifest
from training.evaluate.sets.results import SCORES, Result, about_set, read_result, write_result

Metric = Callable[[Path, Manifest], dict[str, Any]]


def score(args: argparse.Namespace) -> int:
    """The command `score`, with the arguments of `training.evaluate.cli`.

    Returns:
        The exit code: 0, or 2 if nothing could be measured.

    Raises:
        OSError, ValueError: errors for the user; scores of the folders before the failing one are saved.
    """
    sets = {folder: read_manifest(folder) for folder in find_sets(args.folders)}
    for folder, manifest in sets.items():
        check_images(folder, manifest)
    out = args.out or args.folders[0] / SCORES
    before = read_result(out, "scores")["sets"] if out.is_file() else []
    metrics = _metrics(args)
    not_run: dict[str, str] = {}
    measured: list[Result] = []
    for folder, manifest in sets.items():
        measured.append(measure_set(folder, manifest, metrics, not_run))
        # saved after each folder: one may take hours, and the next may fail
        write_result(out, "scores", {"protocol": args.protocol, "sets": merge(before, measured)})
    for name, reason in not_run.items():
        print(f"not run: {name}: {reason}", file=sys.stderr)
    print(summary(measured))
    print(out, file=sys.stderr)
    return 0 if any(row["scores"] for row in measured) else 2


def _metrics(args: argparse.Namespace) -> dict[str, Metric]:
    """The metrics that the command line asks for, by name; nothing is loaded yet.

    Raises:
        ValueError: a plug-in is not known.
    """
    device, batch = choose_device(args.cpu), args.batch
    distribution = Distribution(
        reference_path=args.reference,
        save_reference=args.save_reference,
        inception_weights=args.inception_weights,
        side=args.side,
        neighbours=args.neighbours,
        batch=batch,
        device=device,
    )
    known: dict[str, Metric] = {
        "fid": distribution.fid,
        "prc": distribution.prc,
        "clip": ClipScore(args.clip_model, args.clip_weights, args.clip_prefix, batch, device),
    }
    for version in ("v2.0", "v2.1"):
        weights = getattr(args, f"hps_{version}_weights")
        known[f"hps-{version}"] = Hps(version, args.hps_model, weights, batch, device)
    return {name: known[name] for name in args.metrics} | {name: Plugin(name, batch) for name in args.plugins}


def measure_set(folder: Path, manifest: Manifest, metrics: dict[str, Metric], not_run: dict[str, str]) -> Result:
    """All scores of one folder.

    Args:
        not_run: reasons of metrics that cannot run, by name; they are skipped, and new ones are added.
    """
    scores: dict[str, Any] = {}
    for name, metric in metrics.items():
        if name in not_run:
            continue
        try:
            scores[name] = metric(folder, manifest)
        except NotRun as error:
            not_run[name] = str(error)
    groups = dict(Counter(row.group for row in manifest.images))
    return about_set(folder, manifest) | {"groups": groups, "scores": scores, "not_run": dict(not_run)}


def merge(before: list[Result], now: list[Result]) -> list[Result]:
    """The new results, with earlier scores of the same images by other metrics, and the results of other folders."""
    merged = []
    for row in now:
        old = next((b for b in before if b.get("digest") == row["digest"]), None)
        if old is not None:
            row = row | {"scores": old["scores"] | row["scores"]}
            row["not_run"] = {k: v for k, v in (old["not_run"] | row["not_run"]).items() if k not in row["scores"]}
        merged.append(row | {"shortfalls": shortfalls(row["groups"], row["scores"])})
    again = {row[key] for row in now for key in ("folder", "digest")}
    return [b for b in before if not again & {b["folder"], b.get("digest")}] + merged


def summary(rows: list[Result]) -> str:
    """The scores as text, one line for each set of images."""
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
