"""`generate`: prompts in, images out, for one student and any number of methods.

Images depend on the student, the method and (prompt, number) alone: rows are made in the same whole batches whatever
the number of processes and whatever was there already, so that not even rounding differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from tqdm import tqdm

from snoopi_core.checkpoint import OneStepRecipe
from training.backbone import Backbone
from training.config import Prompts
from training.evaluate.images import is_whole, write_image
from training.evaluate.manifest import COST, Manifest, Model, Row, claim_folder
from training.evaluate.pairs import Pair, load_pairs
from training.evaluate.rows import rows_of_pairs, rows_of_prompts
from training.evaluate.student import load_student, parse_methods, weights_of
from training.export import provenance
from training.processes import on_main
from training.run_folder import write_atomically
from training.shapes.sampling import noise
from training.steering import Method, sampling_recipe, steered_x0
from training.text import concat


@dataclass(kw_only=True)
class Maker:
    """Makes the images of manifests with one student, in this process."""

    model: Backbone
    recipe: OneStepRecipe
    accelerator: Accelerator
    latents: tuple[int, int, int]
    sampling: list[tuple[int, float]] = field(default_factory=list, init=False)  # images and seconds of each batch

    def make(self, folder: Path, manifest: Manifest) -> int:
        """Write what is missing of this process's batches; returns how many images that were."""
        rows, size = manifest.images, manifest.batch
        batches = [rows[n : n + size] for n in range(0, len(rows), size)]
        own = batches[self.accelerator.process_index :: self.accelerator.num_processes]
        made, started = 0, time.monotonic()
        self.sampling.clear()
        total = sum(map(len, own))
        main = self.accelerator.is_main_process
        with tqdm(total=total, desc=manifest.method, unit="image", mininterval=1, disable=not main) as bar:
            for batch in own:
                missing = [n for n, row in enumerate(batch) if not is_whole(folder / row.file, manifest.info(row))]
                if missing:
                    images = self.draw(list(batch), Method.parse(manifest.method))
                    for n in missing:
                        write_image(folder / batch[n].file, images[n], manifest.info(batch[n]))
                    made += len(missing)
                bar.update(len(batch))
        if made and main:
            self._tell_cost(folder, made, time.monotonic() - started)
        return made

    @torch.no_grad()
    def draw(self, rows: list[Row], method: Method) -> torch.Tensor:
        """Images (B, 3, H, W) in [0, 1], on the CPU."""
        model, device = self.model, self.accelerator.device
        positive = model.encode([row.prompt for row in rows])
        negative = None
        if method.name != "none":
            words = [row.negative or "" for row in rows]
            known = list(dict.fromkeys(words))
            encoded = model.encode(known)
            negative = concat([encoded[known.index(word) : known.index(word) + 1] for word in words])
        began = time.monotonic()
        with self.accelerator.autocast():
            x0 = steered_x0(model, method, positive, negative, self.recipe, partial(self._noise, rows))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.sampling.append((len(rows), time.monotonic() - began))
        return torch.cat([model.decode(row.float()).cpu() for row in x0.split(1)])  # big images take much memory

    def _noise(self, rows: list[Row], step: int) -> torch.Tensor:
        """z of the step with this number; drawn on the CPU, so that every device sees the same."""
        seeds = [(row.seed or 0) + step for row in rows]
        return noise(seeds, self.latents).to(self.accelerator.device)

    def _tell_cost(self, folder: Path, made: int, seconds: float) -> None:
        device = self.accelerator.device
        sampling = self.sampling[1:] or self.sampling  # the first one warms up
        cost = {
            "images": made,
            "seconds": round(seconds, 3),
            "sampled": sum(images for images, _ in sampling),
            "sampling_seconds": round(sum(seconds for _, seconds in sampling), 3),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": self.accelerator.num_processes,
        }
        write_atomically(folder / COST, json.dumps(cost, indent=1) + "\n")


def folder_of(out: Path, method: Method) -> Path:
    """Where a method's images lie."""
    return out / str(method).replace(":", "-")


def generate(args: argparse.Namespace) -> int:
    """The command; see `training.evaluate.arguments`. Raises OSError and ValueError, in words for the user."""
    methods = parse_methods(args.methods, args.model)  # what is wrong with the words comes before any loading
    pairs = load_pairs(args.pairs) if args.pairs else ()
    rows = _rows(args, pairs)
    if args.threads:
        torch.set_num_threads(args.threads)
    # a process whose images are there already waits for the others, for longer than NCCL's 10 minutes
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    accelerator = Accelerator(mixed_precision=args.precision, cpu=args.cpu, kwargs_handlers=[patience])
    model = load_student(args.model, text_encoder=args.text_encoder, vae=args.vae)
    maker, size = new_maker(model, accelerator, timesteps=tuple(args.timesteps), size=args.size)
    about = Model(path=args.model, fingerprint=weights_of(model), family=model.family.name)
    for method in methods:
        manifest = Manifest(
            format=1,
            title=args.title or Path(args.model).stem,
            model=about,
            method=str(method),
            recipe=maker.recipe,
            seed=args.seed,
            size=size,
            precision=args.precision,
            batch=args.batch,
            protocol=args.protocol,
            pairs=pairs,
            versions=provenance().versions,
            images=rows,
        )
        folder = folder_of(args.out, method)
        manifest = on_main(accelerator, partial(claim_folder, folder, manifest))
        made = maker.make(folder, manifest)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            print(f"{folder}: {len(rows)} images, {_said(made, len(rows), accelerator)}", file=sys.stderr)
    return 0


def new_maker(
    model: Backbone, accelerator: Accelerator, *, timesteps: tuple[int, ...] = (), size: int | None = None
) -> tuple[Maker, tuple[int, int]]:
    """A maker on the accelerator's device, and the (width, height) of what it makes.

    Raises:
        ValueError: `size` is no multiple of what the VAE and the network take.
    """
    model = model.to(accelerator.device)
    scale = 2 ** (len(model.vae.config.block_out_channels) - 1)
    side = model.network.config.sample_size if size is None else size // scale
    if not isinstance(side, int) or (size is not None and size % scale):
        raise ValueError(f"size {size} does not fit the model; expected --size with a multiple of {scale}")
    recipe = sampling_recipe(model, timesteps)
    maker = Maker(model=model, recipe=recipe, accelerator=accelerator, latents=(model.latent_channels, side, side))
    return maker, (side * scale, side * scale)


def _rows(args: argparse.Namespace, pairs: tuple[Pair, ...]) -> tuple[Row, ...]:
    if pairs:
        return rows_of_pairs(pairs, count=args.count, seed=args.seed)
    section = Prompts(source=args.prompts, column=args.column, split=args.split)
    return rows_of_prompts(section, count=args.count, limit=args.limit, negative=args.negative, seed=args.seed)


def _said(made: int, count: int, accelerator: Accelerator) -> str:
    if accelerator.num_processes > 1:
        return f"{made} made by the first of {accelerator.num_processes} processes"
    return f"{made} made, {count - made} were there"
