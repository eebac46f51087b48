"""`alpha`: measure which NASA strength suits a student, on a few dozen images, and write it into the student's file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator

from snoopi_core.formats.checkpoint import BaseMetadata, CheckpointError
from snoopi_core.formats.tensor_file import open_tensor_file, save_atomically
from training.config import find_file
from training.evaluate.generate.command import folder_of, open_maker
from training.evaluate.generate.student import find_student, read_about
from training.evaluate.judges.load import load_judge
from training.evaluate.judges.removal import judge_sets, legend, summary, tally
from training.evaluate.metrics.batching import choose_device
from training.evaluate.sets.folder import claim_folder
from training.evaluate.sets.manifest import Manifest
from training.evaluate.sets.pairs import load_pairs
from training.evaluate.sets.rows import rows_of_pairs
from training.models.guidance.methods import Method

TIE = 0.02  # smaller differences in shares are ignored: one or two images of a few dozen


def alpha(args: argparse.Namespace) -> int:
    """The command `alpha`, with the arguments of `training.evaluate.cli`; returns the exit code.

    Raises:
        OSError, ValueError: errors for the user; nothing was written.
    """
    path = find_file(find_student(args.model))
    if not args.dry_run:
        _own_metadata(path)
    judge = load_judge(args.judge, args.clip_model, args.clip_weights, choose_device(args.cpu))
    pairs = load_pairs(args.pairs)
    alphas = sorted({value for value in args.alphas if value > 0})
    if not alphas:
        raise ValueError(f"--alphas {args.alphas}: expected numbers above 0")
    if args.threads:
        torch.set_num_threads(args.threads)
    accelerator = Accelerator(mixed_precision=args.precision, cpu=args.cpu)
    if accelerator.num_processes > 1:
        raise ValueError(f"alpha runs in one process, got {accelerator.num_processes}; start it without a launcher")
    maker, size, about = open_maker(args, accelerator)
    rows = rows_of_pairs(pairs, count=args.count, seed=args.seed)
    common = {"format": 1, "title": path.stem, "model": about, "size": size, "batch": args.batch}
    with TemporaryDirectory(prefix="snoopi-alpha-") as scratch:
        sets: dict[Path, Manifest] = {}
        for method in (Method("none"), *(Method("nasa", value) for value in alphas)):
            manifest = Manifest(**common, method=str(method), pairs=pairs, images=rows)
            folder = folder_of(Path(scratch), method)
            sets[folder] = claim_folder(folder, manifest)
            maker.make(folder, manifest)
        result = tally(sets, judge_sets(judge, sets, args.batch))
    print(summary(result), legend(result), sep="\n")
    clean = {}
    for row, value in zip(result["sets"][1:], alphas, strict=True):
        if (share := row["means"]["all"]["clean"]) is None:
            raise ValueError(
                f"judge {args.judge} does not judge whether the prompt is kept, which choosing alpha needs"
            )
        clean[value] = share["share"]
    chosen = choose_alpha(clean)
    print(f"recommended alpha: {chosen:g} (clean removals: {clean[chosen]:.2f}, {len(rows)} images an alpha)")
    if not args.dry_run:
        before = write_alpha(path, chosen)
        print(f"{path}: {'no alpha' if before is None else f'{before:g}'} -> {chosen:g}", file=sys.stderr)
    return 0


def choose_alpha(clean: Mapping[float, float]) -> float:
    """The smallest alpha whose share of clean removals is within `TIE` of the best: larger ones distort more.

    Args:
        clean: share of clean removals, by alpha.

    Raises:
        ValueError: no alpha gives a clean removal.
    """
    best = max(clean.values())
    if best <= 0:
        raise ValueError(
            f"no alpha of {', '.join(f'{alpha:g}' for alpha in clean)} removes anything in a valid image that keeps "
            "its prompt; try others with --alphas, or look at the images (generate --pairs)"
        )
    return min(alpha for alpha, share in clean.items() if share >= best - TIE)


def write_alpha(path: Path, alpha: float) -> float | None:
    """Write the recommended alpha into the metadata of a student's file, atomically; the weights stay bit-identical.

    Returns:
        The alpha that the file recommended before.

    Raises:
        CheckpointError: not a file of this project.
        OSError: the file cannot be written; the old one stays.
    """
    file = open_tensor_file(path)
    key, about = _own_metadata(path)
    new = about.model_copy(update={"recommended_alpha": alpha})
    save_atomically(path, file.read(), file.metadata | {key: new.model_dump_json()})
    return about.recommended_alpha


def _own_metadata(path: Path) -> tuple[str, BaseMetadata]:
    key, about = read_about(str(path))
    if about is None:
        raise CheckpointError(
            f"{path} is not a file of this project: an alpha can be measured (--dry-run), not written; make one with "
            "`python -m training.export`"
        )
    return key, about
