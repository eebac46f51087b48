"""Samples of student and teacher at fixed prompts and noise, drawn by all processes together.

Dimensions: P prompts, K noise seeds of each, C latent channels, h x w latent size, H x W size of a shown image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional

from snoopi_core.formats.tensor_file import save_atomically
from training.config import Recipe
from training.distill.noise_levels import NoiseLevels
from training.distill.rng import generator
from training.models.backbone import Backbone
from training.models.sampling import ddim_x0, few_step_x0
from training.models.text_embeddings import TextEmbeddings
from training.trainer.distributed.accelerator import on_main

LARGEST, SMALLEST = 192, 96  # width of a shown image in pixels, so that 8 prompts fit on a screen
STEPS, KAPPA = 20, 3.0  # of the teacher; 3 is its best guidance (SNOOPI, Table 1)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """x0: latents (P, K, C, h, w) fp32. tiles: images as shown (P, K, 3, H, W) uint8. Both on the CPU."""

    x0: torch.Tensor
    tiles: torch.Tensor


@dataclass
class Sampler:
    """Draws the fixed samples of P prompts.

    A process draws whole prompts, each in a batch of its K seeds, so images do not depend on the number of processes.
    Every process must call the methods, as FSDP needs it, and gets all samples.
    """

    prompts: list[str]
    recipe: Recipe
    accelerator: Accelerator
    backbone: Backbone
    teacher_fingerprint: str
    levels: NoiseLevels

    def __post_init__(self) -> None:
        recipe, backbone, prompts = self.recipe, self.backbone, self.prompts
        size, seeds = recipe.loop.latent_size, recipe.output.sample_seeds
        shape = (len(prompts), seeds, backbone.latent_channels, size, size)
        self.z = torch.randn(shape, generator=generator(recipe.seed, "samples"))
        later = range(1, len(recipe.student.steps))
        self.noise = [torch.randn(shape, generator=generator(recipe.seed, "samples", step)) for step in later]
        self.text, self.null = backbone.encode(prompts), backbone.encode([""])

    def student(self, network: nn.Module) -> Samples:
        """Samples of all steps of `network`."""
        settings = {"steps": self.levels.steps, "kind": self.recipe.student.transition}
        training = network.training
        network.eval()

        def draw(text: TextEmbeddings, z: torch.Tensor, prompt: int) -> torch.Tensor:
            def noise(step: int) -> torch.Tensor:
                return self.noise[step - 1][prompt].to(z)

            return few_step_x0(self.backbone, network, text, z, noise=noise, **settings)

        try:
            return self._draw_all(draw)
        finally:
            network.train(training)

    def teacher(self, cache: Path) -> Samples:
        """Samples of 20 DDIM steps of the backbone's network, whose adapters must be off. They are cached in a file.

        Raises:
            OSError, FailedElsewhere: the file cannot be written.
        """
        found = on_main(self.accelerator, lambda: self._read(cache))
        if found is not None:
            return found
        samples = self._draw_all(
            lambda text, z, _: ddim_x0(self.backbone, text, self.null, z, steps=STEPS, kappa=KAPPA)
        )
        tensors = {"x0": samples.x0, "tiles": samples.tiles}
        on_main(self.accelerator, lambda: save_atomically(cache, tensors, {"made_by": self._made_by()}))
        return samples

    @torch.no_grad()
    def _draw_all(self, draw: Callable[[TextEmbeddings, torch.Tensor, int], torch.Tensor]) -> Samples:
        """`draw` takes the text and noise of a prompt, and its number.

        Process r of n draws prompts r, r + n, r + 2n, ...; if P is not a multiple of n, some are drawn twice.
        """
        count, world, rank = len(self.prompts), self.accelerator.num_processes, self.accelerator.process_index
        rounds = -(-count // world)
        latents, tiles = [], []
        for turn in range(rounds):
            prompt = (turn * world + rank) % count
            z = self.z[prompt].to(self.accelerator.device)
            with self.accelerator.autocast():
                x0 = draw(self.text[prompt : prompt + 1].expand(len(z)), z, prompt).float()
            latents.append(x0)
            # one image at a time: a decoder's activations are large
            tiles.append(torch.cat([as_tiles(self.backbone.decode(one[None])) for one in x0]))
        # (n rounds, K, ...), process by process
        order = [(prompt % world) * rounds + prompt // world for prompt in range(count)]
        all_latents, all_tiles = self.accelerator.gather((torch.stack(latents), torch.stack(tiles)))
        return Samples(x0=all_latents[order].cpu(), tiles=all_tiles[order].cpu())

    def _read(self, path: Path) -> Samples | None:
        """Samples cached by an earlier start, if they are of the same teacher, prompts and noise."""
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("made_by") == self._made_by():
                    return Samples(x0=file.get_tensor("x0"), tiles=file.get_tensor("tiles"))
        except (OSError, SafetensorError):
            return None
        return None

    def _made_by(self) -> str:
        recipe = self.recipe
        settings = {
            "teacher": recipe.teacher.model_dump(mode="json") | {"network": self.teacher_fingerprint},
            "prompts": self.prompts,
            "seed": recipe.seed,
            "shape": list(self.z.shape),
            "steps": STEPS,
            "kappa": KAPPA,
        }
        return json.dumps(settings, sort_keys=True)


def as_tiles(images: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in [0, 1] as uint8, reduced to 192 pixels width; small ones are enlarged by an integer."""
    width = images.shape[-1]
    if width > LARGEST:
        images = functional.interpolate(images.float(), scale_factor=LARGEST / width, mode="bilinear", antialias=True)
    elif width < SMALLEST:
        images = functional.interpolate(images.float(), scale_factor=-(-SMALLEST // width), mode="nearest")
    return (images.clamp(0, 1) * 255).round().byte()
