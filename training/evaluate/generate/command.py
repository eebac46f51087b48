"""The command `generate`: makes the images of all prompts with one student, by any number of methods.

Images depend only on the student, the method and (prompt, number): they are made in the same whole batches whatever the
number of processes and whatever exists already, so that not even rounding differs.
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
from training.console import long_step
from training.evaluate.generate.maker import Maker, new_maker
from training.evaluate.generate.student import find_student, load_student, parse_methods, weights_hash
from training.evaluate.generate.teacher import open_scheduler
from training.evaluate.sets.folder import check_folder, claim_folder
from training.evaluate.sets.manifest import Manifest, Model
from training.evaluate.sets.pairs import load_pairs
from training.evaluate.sets.rows import rows_of_pairs, rows_of_prompts
from training.models.guidance.methods import Method
from training.models.sampling_recipe import with_preset
from training.trainer.distributed.accelerator import on_main
from training.trainer.export import provenance
from training.trainer.run_folder.lock import locked


def folder_of(out: Path, method: Method) -> Path:
    """The folder for the images of a method."""
    return out / str(method).replace(":", "-")


def open_maker(args: argparse.Namespace, accelerator: Accelerator) -> tuple[Maker, tuple[int, int], Model]:
    """A maker for the model of a command line, the (width, height) of its images, and the model's description.

    Raises:
        OSError, ValueError: errors for the user.
    """
    with long_step(f"loading {args.model}", at_once=False):
        model = load_student(args.model, text_encoder=args.text_encoder, vae=args.vae, base=args.base)
    if (preset := find_preset(args.preset)) is not None:
        model = with_preset(model, preset)
    maker, size = new_maker(model, accelerator, timesteps=tuple(args.timesteps), size=args.size)
    with long_step("hashing its weights", at_once=False):
        about = Model(path=args.model, fingerprint=weights_hash(model), family=model.family.name)
    return maker, size, about


def generate(args: argparse.Namespace) -> int:
    """The command `generate`, with the arguments of `training.evaluate.cli`; returns the exit code.

    Raises:
        OSError, ValueError: errors for the user.
    """
    methods = parse_methods(args.methods, args.model, find_preset(args.preset))  # before anything slow is loaded
    pairs = load_pairs(args.pairs) if args.pairs else ()
    if pairs:
        rows = rows_of_pairs(pairs, count=args.count, seed=args.seed)
    else:
        section = Prompts(source=args.prompts, column=args.column, split=args.split)
        rows = rows_of_prompts(section, count=args.count, limit=args.limit, negative=args.negative, seed=args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    # a process that has nothing to do waits for the others, for longer than NCCL's default of 10 minutes
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    accelerator = Accelerator(mixed_precision=args.precision, cpu=args.cpu, kwargs_handlers=[patience])
    maker, size, about = open_maker(args, accelerator)
    if any(method.many_steps for method in methods):
        maker.scheduler = open_scheduler(find_student(args.model), maker.model)
    manifests = {
        folder_of(args.out, method): Manifest(
            format=1,
            title=args.title or Path(args.model).name.removesuffix(".safetensors"),
            model=about,
            method=str(method),
            recipe=None if method.many_steps else maker.recipe,
            prediction=maker.model.prediction_type,
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

    def check_folders() -> None:
        for folder, manifest in manifests.items():
            check_folder(folder, manifest)

    on_main(accelerator, check_folders)  # check all folders before the first image is made
    for folder, manifest in manifests.items():
        with locked(folder, accelerator, f"another process is making images in {folder}; wait for it, or stop it"):
            manifest = on_main(accelerator, partial(claim_folder, folder, manifest, labels))
            made = maker.make(folder, manifest)
            accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            count = f"{made} made, {len(rows) - made} existed"
            if accelerator.num_processes > 1:
                count = f"{made} made by the first of {accelerator.num_processes} processes"
            print(f"{folder}: {len(rows)} images, {count}", file=sys.stderr)
    return 0
