"""What a person sees of a run: figures, sample grids. Nothing here changes the weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from training.backbone import Backbone
from training.config import Recipe
from training.levels import Levels
from training.noise import generator
from training.players import Teachers
from training.prompts import open_prompts
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


class Sight:
    """What is seen of a run; the loop calls these and nothing else."""

    def __init__(
        self,
        *,
        folder: Path,
        recipe: Recipe,
        accelerator: Accelerator,
        backbone: Backbone,
        teachers: Teachers,
        levels: Levels,
    ) -> None:
        self.folder, self.recipe, self.accelerator = folder, recipe, accelerator
        self.backbone, self.teachers, self.levels = backbone, teachers, levels
        self.main = accelerator.is_main_process

    def start(self, iteration: int) -> None:
        """Before the first iteration that is about to be run; `iteration` are done."""
        output, loop = self.recipe.output, self.recipe.loop
        self.metrics = MetricsLog(self.folder / "metrics.jsonl", output.log_every, iteration)
        self.bar = tqdm(
            initial=iteration,
            total=loop.iterations,
            desc="PG-SB",
            unit="it",
            dynamic_ncols=True,
            disable=not self.main,
        )
        self.grid = SampleGrid(self.folder / "samples", self.backbone, self.levels, self.recipe)
        if output.sample_every:
            with self.teachers.frozen():
                self.grid.draw_teacher()

    def after_iteration(self, iteration: int, figures: dict[str, float], x0: torch.Tensor) -> None:
        """figures: means over the batch; x0: this process's images, (B, C, h, w) fp32."""
        if self.main:
            self.metrics.after(iteration, figures)
        self.bar.update()
        self.bar.set_postfix(vsd=f"{figures['vsd']:.1e}", kappa=f"{figures['kappa']:.2f}")

    def after_samples(self, iteration: int, student: nn.Module) -> float | None:
        """Draw fixed samples from the averaged student; returns its distance from the teacher's, where measured."""
        self.grid.after(iteration, student)
        return None

    def close(self) -> None:
        self.bar.close()


class SampleGrid:
    """samples/: the teacher's images above the student's, same prompts and noise every time."""

    def __init__(self, folder: Path, backbone: Backbone, levels: Levels, recipe: Recipe) -> None:
        self.folder, self.backbone, self.levels, self.recipe = folder, backbone, levels, recipe
        self.prompts = list(recipe.output.sample_prompts) or open_prompts(recipe.prompts, recipe.seed).take(SAMPLES)
        device = backbone.network.device
        size = recipe.loop.latent_size
        rng = generator(recipe.seed, "samples")
        self.z = torch.randn((len(self.prompts), backbone.latent_channels, size, size), generator=rng).to(device)
        self.text, self.null = backbone.encode(self.prompts), backbone.encode([""])
        self._teacher: torch.Tensor | None = None

    def draw_teacher(self) -> None:
        """The upper row; call it while the backbone's network is without adapters."""
        self._teacher = self.backbone.decode(ddim_x0(self.backbone, self.text, self.null, self.z)).cpu()

    def after(self, iteration: int, student: nn.Module) -> None:
        student.eval()
        x0 = one_step_x0(
            self.backbone,
            student,
            self.text,
            self.z,
            timestep=self.recipe.student.timestep,
            alpha_T=self.levels.alpha_T,
            sigma_T=self.levels.sigma_T,
        )
        student.train()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "prompts.txt").write_text("".join(prompt + "\n" for prompt in self.prompts), encoding="utf-8")
        rows = [self._teacher] if self._teacher is not None else []
        images = torch.cat([*rows, self.backbone.decode(x0).cpu()])
        save_image(make_grid(images, nrow=len(self.prompts)), self.folder / f"step-{iteration:08d}.png")
