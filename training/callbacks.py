"""What a person sees of a run: figures, sample grids. Nothing here changes the weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torchvision.utils import make_grid, save_image

from training.backbone import Backbone
from training.config import Recipe
from training.iteration import Levels
from training.noise import generator
from training.prompts import PromptBatch
from training.sampling import ddim_x0, one_step_x0

SAMPLES = 8


class MetricsLog:
    """metrics.jsonl: one line of named figures every `log_every` iterations."""

    def __init__(self, path: Path, every: int, start: int) -> None:
        self.path, self.every = path, every
        if path.exists():  # lines past the checkpoint belong to work that is about to be done again
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _iteration(line) <= start]
            scratch = path.with_suffix(".tmp")
            scratch.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            scratch.replace(path)

    def after(self, iteration: int, figures: dict[str, float]) -> None:
        if iteration % self.every == 0 or iteration == 1:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"iteration": iteration, **figures}) + "\n")


def _iteration(line: str) -> int:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62  # a line cut short by a kill


class SampleGrid:
    """samples/: the teacher's images above the student's, same prompts and noise every time."""

    def __init__(self, folder: Path, backbone: Backbone, prompts: PromptBatch, levels: Levels, recipe: Recipe) -> None:
        self.folder, self.backbone, self.levels, self.recipe = folder, backbone, levels, recipe
        self.prompts = list(recipe.output.sample_prompts) or prompts(0, SAMPLES)
        device = backbone.unet.device
        size = recipe.loop.latent_size
        rng = generator(recipe.seed, "samples")
        self.z = torch.randn((len(self.prompts), backbone.unet.config.in_channels, size, size), generator=rng).to(
            device
        )
        self.text, self.null = backbone.encode(self.prompts), backbone.encode([""])
        self._teacher: torch.Tensor | None = None

    def draw_teacher(self) -> None:
        """The upper row; call it while the backbone's UNet is still without adapters."""
        self._teacher = self.backbone.decode(ddim_x0(self.backbone, self.text, self.null, self.z)).cpu()

    def after(self, iteration: int, student: nn.Module) -> None:
        student.eval()
        x0 = one_step_x0(
            student,
            self.text,
            self.z,
            timestep=self.recipe.student.timestep,
            alpha_T=self.levels.alpha_T,
            sigma_T=self.levels.sigma_T,
            prediction_type=self.backbone.prediction_type,
        )
        student.train()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "prompts.txt").write_text("".join(prompt + "\n" for prompt in self.prompts), encoding="utf-8")
        rows = [self._teacher] if self._teacher is not None else []
        images = torch.cat([*rows, self.backbone.decode(x0).cpu()])
        save_image(make_grid(images, nrow=len(self.prompts)), self.folder / f"step-{iteration:08d}.png")
