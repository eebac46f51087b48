"""`alpha`: measure which NASA strength suits a student, on a few dozen images, and write it into the student's file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator

from snoopi_core.formats.checkpoint import CheckpointError
from snoopi_core.presets import find_preset
from training.config import find_file
from training.evaluate.generate.command import folder_of
from training.evaluate.generate.maker import new_maker
from training.evaluate.generate.student import find_student, load_student, own_about, weights_of
from training.evaluate.judges import load_judge
from training.evaluate.judges.removal import judge_sets, said, tally
from training.evaluate.sets.folder import claim_folder
from training.evaluate.sets.manifest import Manifest, Model
from training.evaluate.sets.pairs import load_pairs
from training.evaluate.sets.rows import rows_of_pairs
from training.evaluate.write_alpha import choose_alpha, write_alpha
from training.models.guidance.methods import Method, with_preset


def alpha(args: argparse.Namespace) -> int:
    """The command; see `training.evaluate.cli`.

    Raises:
        OSError, ValueError: what is wrong, in words for the user; nothing was written.
    """
    path = find_file(find_student(args.model))
    if not args.dry_run:
        check_writable(path)
    judge, pairs = load_judge(args), load_pairs(args.pairs)
    alphas = sorted({value for value in args.alphas if value > 0})
    if not alphas:
        raise ValueError(f"--alphas {args.alphas}: expected numbers above 0")
    if args.threads:
        torch.set_num_threads(args.threads)
    accelerator = Accelerator(mixed_precision=args.precision, cpu=args.cpu)
    if accelerator.num_processes > 1:
        raise ValueError(f"got {accelerator.num_processes} processes; alpha makes few images, it needs no launcher")
    preset = find_preset(args.preset)
    model = load_student(args.model, text_encoder=args.text_encoder, vae=args.vae, base=args.base)
    model = model if preset is None else with_preset(model, preset)
    about = Model(path=args.model, fingerprint=weights_of(model), family=model.family.name)
    maker, size = new_maker(model, accelerator, timesteps=tuple(args.timesteps), size=args.size)
    rows = rows_of_pairs(pairs, count=args.count, seed=args.seed)
    with TemporaryDirectory(prefix="snoopi-alpha-") as scratch:
        sets: dict[Path, Manifest] = {}
        for method in (Method("none"), *(Method("nasa", value) for value in alphas)):
            manifest = Manifest(
                format=1,
                title=path.stem,
                model=about,
                method=str(method),
                size=size,
                batch=args.batch,
                pairs=pairs,
                images=rows,
            )
            folder = folder_of(Path(scratch), method)
            sets[folder] = claim_folder(folder, manifest)
            maker.make(folder, manifest)
        result = tally(sets, judge_sets(judge, sets, args.batch))
    print(said(result))
    clean = {}
    for row, value in zip(result["sets"][1:], alphas, strict=True):
        if (share := row["means"]["all"]["clean"]) is None:
            raise ValueError(f"judge {args.judge} does not tell whether the prompt is kept, so no alpha can be chosen")
        clean[value] = share["share"]
    chosen = choose_alpha(clean)
    print(f"recommended alpha: {chosen:g} (clean removals: {clean[chosen]:.2f}, {len(rows)} images an alpha)")
    if not args.dry_run:
        before = write_alpha(path, chosen)
        print(f"{path}: {'no alpha' if before is None else f'{before:g}'} -> {chosen:g}", file=sys.stderr)
    return 0


def check_writable(path: Path) -> None:
    """Raises CheckpointError, before anything is measured, where there is nothing to write into."""
    if own_about(str(path))[1] is None:
        raise CheckpointError(
            f"{path} is not a file of this project: an alpha can be measured (--dry-run), not written; make one with "
            "`python -m training.export`"
        )
