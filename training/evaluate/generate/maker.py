"""Makes images with one student, in this process: the rows of a manifest that are its own."""

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
from training.evaluate.generate.noise import noise
from training.evaluate.sets.image_files import is_whole, write_image
from training.evaluate.sets.manifest import COST, Manifest, Row
from training.models.backbone import Backbone
from training.models.guidance.methods import Method, sampling_recipe, steered_x0
from training.models.sampling import guided_x0
from training.models.text_embeddings import concat
from training.prompts.shapes.captions import NULL_PROMPT


@dataclass(kw_only=True)
class Maker:
    """Makes the images of manifests with one student, in this process."""

    model: Backbone
    recipe: OneStepRecipe
    accelerator: Accelerator
    latents: tuple[int, int, int]
    scheduler: Any = None  # of diffusers, for a teacher's many steps
    sampling: list[tuple[int, float]] = field(default_factory=list, init=False)  # images and seconds of each batch

    def make(self, folder: Path, manifest: Manifest) -> int:
        """Write what is missing of this process's batches; returns how many images that were.

        Raises:
            FailedHere: an image could not be made or written, in this process at least.
        """
        try:
            return self._make(folder, manifest)
        except torch.OutOfMemoryError as error:
            raise FailedHere(
                f"the GPU's memory is too small for --batch {manifest.batch}; give a smaller one (and another --out "
                "where images have been made already)"
            ) from error
        except (OSError, ValueError) as error:
            raise FailedHere(str(error)) from error

    def _make(self, folder: Path, manifest: Manifest) -> int:
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
        """Images (B, 3, H, W) in [0, 1], on the CPU.

        Raises:
            ValueError: the network's answer is not finite.
        """
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
            if method.many_steps:
                null = model.encode([NULL_PROMPT]) if method.name == "teacher" or negative is None else negative
                z, steps, kappa = self._noise(rows, 0), method.steps, method.strength
                x0 = guided_x0(model, self.scheduler, positive, null, z, steps=steps, kappa=kappa)
            else:
                x0 = steered_x0(model, method, positive, negative, self.recipe, partial(self._noise, rows))
        if not torch.isfinite(x0).all():  # black images would be judged as any other
            raise ValueError(
                f"{method} gave values that are not finite in the batch of prompt {rows[0].prompt!r}; with --precision "
                f"fp16 try bf16 or no, else a lower strength (now: {self.accelerator.mixed_precision})"
            )
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.sampling.append((len(rows), time.monotonic() - began))
        return torch.cat([model.decode(row.float()).cpu() for row in x0.split(1)])  # big images take much memory

    def _noise(self, rows: list[Row], step: int) -> torch.Tensor:
        """z of the step with this number; drawn on the CPU, so that every device sees the same."""
        seeds = [(row.seed or 0) + step for row in rows]
        return noise(seeds, self.latents).to(self.accelerator.device)

    def _tell_cost(self, folder: Path, made: int, seconds: float) -> None:
        if made < self._images_of(folder / COST):
            return  # a few that were missing say less than the run that made the rest
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

    @staticmethod
    def _images_of(path: Path) -> int:
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["images"])
        except (OSError, ValueError, KeyError, TypeError):
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
