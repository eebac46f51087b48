"""`generate`: prompts in, images out, for one student and any number of methods.

Images depend on the student, the method and (prompt, number) alone: rows are made in the same whole batches whatever
the number of processes and whatever was there already, so that not even rounding differs.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from snoopi_core.presets import find_preset
from training.config import Prompts
from training.evaluate.generate.maker import new_maker
from training.evaluate.generate.student import find_student, load_student, parse_methods, weights_of
from training.evaluate.generate.teacher import open_scheduler
from training.evaluate.sets.folder import check_folder, claim_folder, held
from training.evaluate.sets.manifest import Manifest, Model, Row
from training.evaluate.sets.pairs import Pair, load_pairs
from training.evaluate.sets.rows import rows_of_pairs, rows_of_prompts
from training.models.guidance.methods import Method, with_preset
from training.trainer.distributed.accelerator import on_main
from training.trainer.export import provenance


def folder_of(out: Path, method: Method) -> Path:
    """Where a method's images lie."""
    return out / str(method).replace(":", "-")


def generate(args: argparse.Namespace) -> int:
    """The command; see `training.evaluate.cli`. Raises OSError and ValueError, in words for the user."""
    preset = find_preset(args.preset)
    methods = parse_methods(args.methods, args.model, preset)  # what is wrong with the words comes before any loading
    pairs = load_pairs(args.pairs) if args.pairs else ()
    rows = _rows(args, pairs)
    if args.threads:
        torch.set_num_threads(args.threads)
    # a process whose images are there already waits for the others, for longer than NCCL's 10 minutes
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    accelerator = Accelerator(mixed_precision=args.precision, cpu=args.cpu, kwargs_handlers=[patience])
    model = load_student(args.model, text_encoder=args.text_encoder, vae=args.vae, base=args.base)
    model = model if preset is None else with_preset(model, preset)
    maker, size = new_maker(model, accelerator, timesteps=tuple(args.timesteps), size=args.size)
    if any(method.many_steps for method in methods):
        maker.scheduler = open_scheduler(find_student(args.model), model)
    about = Model(path=args.model, fingerprint=weights_of(model), family=model.family.name)
    manifests = {
        folder_of(args.out, method): Manifest(
            format=1,
            title=args.title or Path(args.model).name.removesuffix(".safetensors"),
            model=about,
            method=str(method),
            recipe=None if method.many_steps else maker.recipe,
            prediction=model.prediction_type,
            scheduler=type(maker.scheduler).__name__ if method.many_steps else "",
            seed=args.seed,
            size=size,
            precision=args.precision,
            batch=args.batch,
            protocol=args.protocol,
            pairs=pairs,
            versions=provenance().versions,
            images=rows,
        )
        for method in methods
    }
    labels = {key: label for key in ("title", "protocol") if (label := getattr(args, key))}
    on_main(accelerator, partial(_check_folders, manifests))
    for folder, manifest in manifests.items():
        with held(folder, accelerator):
            manifest = on_main(accelerator, partial(claim_folder, folder, manifest, labels))
            made = maker.make(folder, manifest)
            accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            print(f"{folder}: {len(rows)} images, {_said(made, len(rows), accelerator)}", file=sys.stderr)
    return 0


def _check_folders(manifests: dict[Path, Manifest]) -> None:
    """All of them, before the first image is made."""
    for folder, manifest in manifests.items():
        check_folder(folder, manifest)


def _rows(args: argparse.Namespace, pairs: tuple[Pair, ...]) -> tuple[Row, ...]:
    if pairs:
        return rows_of_pairs(pairs, count=args.count, seed=args.seed)
    section = Prompts(source=args.prompts, column=args.column, split=args.split)
    return rows_of_prompts(section, count=args.count, limit=args.limit, negative=args.negative, seed=args.seed)


def _said(made: int, count: int, accelerator: Accelerator) -> str:
    if accelerator.num_processes > 1:
        return f"{made} made by the first of {accelerator.num_processes} processes"
    return f"{made} made, {count - made} were there"
