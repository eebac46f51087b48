"""Makes the images of a manifest, each process its own batches."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from snoopi_core.formats.atomic import write_atomically
from snoopi_core.formats.checkpoint import OneStepRecipe
from training.config.errors import FailedHere
from training.evaluate.metrics.batching import batches
from training.evaluate.sets.image_files import is_complete, write_image
from training.evaluate.sets.manifest import COST, Manifest, Row
from training.models.backbone import Backbone
from training.models.guidance.few_steps import steered_x0
from training.models.guidance.methods import Method
from training.models.sampling import guided_x0
from training.models.sampling_recipe import sampling_recipe
from training.models.text_embeddings import concat
from training.prompts.shapes.captions import NULL_PROMPT


@dataclass(kw_only=True)
class Maker:
    """Makes images with one model in this process.

    latents: shape (C, h, w). scheduler: of diffusers, needed for methods of many steps.
    """

    model: Backbone
    recipe: OneStepRecipe
    accelerator: Accelerator
    latents: tuple[int, int, int]
    scheduler: Any = None
    _sampling: list[tuple[int, float]] = field(default_factory=list, init=False)  # images and seconds of each batch

    def make(self, folder: Path, manifest: Manifest) -> int:
        """Make and write the missing images of this process's batches; returns their number.

        Raises:
            FailedHere: an image could not be made or written in this process; others may not have failed.
        """
        try:
            return self._make(folder, manifest)
        except torch.OutOfMemoryError as error:
            raise FailedHere(
                f"not enough GPU memory for --batch {manifest.batch}; give a smaller one (and another --out if images "
                "have been made already)"
            ) from error
        except (OSError, ValueError) as error:
            raise FailedHere(str(error)) from error

    def _make(self, folder: Path, manifest: Manifest) -> int:
        several = list(batches(manifest.images, manifest.batch))
        own = several[self.accelerator.process_index :: self.accelerator.num_processes]
        made, started = 0, time.monotonic()
        self._sampling.clear()
        total = sum(map(len, own))
        main = self.accelerator.is_main_process
        with tqdm(total=total, desc=manifest.method, unit="image", mininterval=1, disable=not main or None) as bar:
            for batch in own:
                missing = [n for n, row in enumerate(batch) if not is_complete(folder / row.file, manifest.info(row))]
                if missing:
                    images = self.draw(list(batch), Method.parse(manifest.method))
                    for n in missing:
                        write_image(folder / batch[n].file, images[n], manifest.info(batch[n]))
                    made += len(missing)
                bar.update(len(batch))
        if made and main:
            self._write_cost(folder, made, time.monotonic() - started)
        return made

    @torch.no_grad()
    def draw(self, rows: list[Row], method: Method) -> torch.Tensor:
        """Images (B, 3, H, W) in [0, 1], on the CPU.

        Raises:
            ValueError: the network's output is not finite.
        """
        model, device = self.model, self.accelerator.device
        positive = model.encode([row.prompt for row in rows])
        negative = None
        if method.name != "none":
            prompts = [row.negative or "" for row in rows]
            unique = list(dict.fromkeys(prompts))
            encoded = model.encode(unique)
            negative = concat([encoded[unique.index(p) : unique.index(p) + 1] for p in prompts])
        began = time.monotonic()
        with self.accelerator.autocast():
            if method.many_steps:
                null = model.encode([NULL_PROMPT]) if method.name == "teacher" or negative is None else negative
                z, steps, kappa = self._noise(rows, 0), method.steps, method.strength
                x0 = guided_x0(model, self.scheduler, positive, null, z, steps=steps, kappa=kappa)
            else:
                x0 = steered_x0(model, method, positive, negative, self.recipe, partial(self._noise, rows))
        if not torch.isfinite(x0).all():  # otherwise black images would be judged like any other
            raise ValueError(
                f"{method} gave values that are not finite in the batch of prompt {rows[0].prompt!r} (--precision "
                f"{self.accelerator.mixed_precision}); use --precision bf16 or no instead of fp16, or a lower strength"
            )
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self._sampling.append((len(rows), time.monotonic() - began))
        return torch.cat(
            [model.decode(row.float()).cpu() for row in x0.split(1)]
        )  # one by one: decoding needs much memory

    def _noise(self, rows: list[Row], step: int) -> torch.Tensor:
        """Noise (B, C, h, w) of a step, drawn on the CPU so that it is the same on every device."""
        seeds = [(row.seed or 0) + step for row in rows]
        return noise(seeds, self.latents).to(self.accelerator.device)

    def _write_cost(self, folder: Path, made: int, seconds: float) -> None:
        """Write how long `made` images took, unless an earlier run made more."""
        try:
            before = int(json.loads((folder / COST).read_text(encoding="utf-8"))["images"])
        except (OSError, ValueError, KeyError, TypeError):
            before = 0
        if made < before:
            return
        device = self.accelerator.device
        sampling = self._sampling[1:] or self._sampling  # the first batch is a warm-up
        cost = {
            "images": made,
            "seconds": round(seconds, 3),
            "sampled": sum(images for images, _ in sampling),
            "sampling_seconds": round(sum(seconds for _, seconds in sampling), 3),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": self.accelerator.num_processes,
        }
        write_atomically(folder / COST, json.dumps(cost, indent=1) + "\n")


def new_maker(
    model: Backbone, accelerator: Accelerator, *, timesteps: tuple[int, ...] = (), size: int | None = None
) -> tuple[Maker, tuple[int, int]]:
    """A maker on the accelerator's device, and the (width, height) of its images.

    Args:
        timesteps: of the student; empty: as its file says.
        size: side of the images in pixels; None: the model's own.

    Raises:
        ValueError: `size` does not fit the VAE and the network.
    """
    model = model.to(accelerator.device)
    scale = 2 ** (len(model.vae.config.block_out_channels) - 1)
    side = model.network.config.sample_size if size is None else size // scale
    if not isinstance(side, int) or (size is not None and size % scale):
        raise ValueError(f"size {size} does not fit the model; expected --size with a multiple of {scale}")
    recipe = sampling_recipe(model, timesteps)
    maker = Maker(model=model, recipe=recipe, accelerator=accelerator, latents=(model.latent_channels, side, side))
    return maker, (side * scale, side * scale)


def noise(seeds: list[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Standard normal latents (B, *shape) fp32, from one seed for each image: the batch does not matter."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
