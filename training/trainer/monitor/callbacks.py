"""What a person sees of a run: progress, figures, sample grids, warnings, a page. Nothing here changes the weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from snoopi_core.formats.atomic import write_atomically
from training.config import Recipe
from training.distill.networks import Teachers
from training.distill.noise_levels import NoiseLevels
from training.models.backbone import Backbone
from training.prompts import open_prompts
from training.trainer.distributed.accelerator import on_main
from training.trainer.monitor.collapse import CollapseDetector
from training.trainer.monitor.latent_stats import compare, diversity, gap_by_timestep, spread
from training.trainer.monitor.metrics_log import MetricsLog
from training.trainer.monitor.progress import Progress, memory_gib
from training.trainer.monitor.report import write_report
from training.trainer.monitor.sample_grid import sample_grid
from training.trainer.monitor.samples import Sampler, Samples
from training.trainer.monitor.trackers import Trackers
from training.trainer.run_folder.describe import describe

log = logging.getLogger(__name__)
PROMPTS = 8  # that are drawn where the recipe names none


class Monitor:
    """The loop calls these methods, in every process, and nothing else.

    After `start`, nothing that goes wrong in showing a run ends it: a full disk, a tracker that is not reached, a
    figure that cannot be computed. It is told once.
    """

    def __init__(
        self,
        *,
        folder: Path,
        recipe: Recipe,
        accelerator: Accelerator,
        backbone: Backbone,
        teachers: Teachers,
        teacher_fingerprint: str,
        levels: NoiseLevels,
    ) -> None:
        self.folder, self.recipe, self.accelerator = folder, recipe, accelerator
        self.teachers = teachers
        self.main = accelerator.is_main_process
        self.watch = CollapseDetector(recipe.loop.iterations)
        self._reported, self._told = True, False
        self.sampler: Sampler | None = None
        self.teacher: Samples | None = None
        if recipe.output.sample_every:
            prompts = list(recipe.output.sample_prompts) or open_prompts(recipe.prompts, recipe.seed).take(PROMPTS)
            self.sampler = Sampler(
                prompts,
                recipe=recipe,
                accelerator=accelerator,
                backbone=backbone,
                teacher_fingerprint=teacher_fingerprint,
                levels=levels,
            )

    def start(self, done: int) -> None:
        """Before the first iteration that is about to be run; `done` are.

        Raises:
            RecipeError: W&B refuses.
            FailedElsewhere: an error in the first process.
        """
        on_main(self.accelerator, lambda: self._open_files(done))
        self._held: dict[str, float] = {}
        if self.sampler is not None:
            self._draw_teacher(self.sampler)
        self.progress = Progress(done, self.recipe.loop.iterations, show=self.main)
        self._pace = (done, time.monotonic())

    def after_iteration(
        self, iteration: int, figures: dict[str, float], x0: torch.Tensor, gap: torch.Tensor, t: torch.Tensor
    ) -> None:
        """After every iteration.

        Args:
            figures: means over the whole batch.
            x0, gap, t: of this process's rows: the images (B, C, h, w), mean |g| (B,), and its timestep (B,).
        """
        sampled = self._is_sampled(iteration)
        logged = sampled or iteration == 1 or iteration % self.recipe.output.log_every == 0
        if logged:
            x0, gap, t = self.accelerator.gather((x0.contiguous(), gap, t))
        if not self.main:
            return
        with self._unharmed(iteration):
            self.progress.update(figures)
        if not logged:
            return
        with self._unharmed(iteration):
            latents, gaps = self._latents(x0), gap_by_timestep(gap, t, self._bounds())
            self._held = figures | latents | gaps | self._resources(iteration)
            if not sampled:  # else with the samples' figures, on the same line
                self._write(iteration)

    def after_samples(self, iteration: int, student: nn.Module) -> float | None:
        """At a sampling point, after `after_iteration`: draw the averaged student, hold it against the teacher.

        Returns:
            Distance from the teacher's samples, in the first process; None elsewhere, and where it is no number.
        """
        if self.sampler is None or self.teacher is None:
            return None
        samples = self.sampler.student(student)
        if not self.main:
            return None
        found: dict[str, float] = {}
        with self._unharmed(iteration):
            if samples.x0.isfinite().all():
                found = compare(samples.x0, self.teacher.x0)
            else:
                log.warning("iteration %d: the averaged student's samples are not finite numbers", iteration)
        with self._unharmed(iteration):
            self._held |= found
            self._write(iteration)
            self._show(iteration, samples)
            self._report()
        return found.get("sample_distance")

    def close(self) -> None:
        """When the run ends, however it does."""
        if not self.main:
            return
        for last in (self.progress.close, self.trackers.close, *([] if self._reported else [self._report])):
            with self._unharmed():
                last()

    @contextmanager
    def _unharmed(self, iteration: int | None = None) -> Iterator[None]:
        """Around what the main process does alone: the others would wait for it in vain."""
        try:
            yield
        except Exception as error:
            if not self._told:
                when = "at the end" if iteration is None else f"iteration {iteration}"
                log.warning("%s: figures or samples cannot be written (%s: %s)", when, type(error).__name__, error)
            self._told = True

    def _open_files(self, done: int) -> None:
        """In the first process, which alone writes."""
        describe(self.folder, self.recipe, self.accelerator, done)
        self.metrics = MetricsLog(self.folder / "metrics.jsonl", done)
        for grid in (self.folder / "samples").glob("step-*.png"):
            if int(grid.stem.removeprefix("step-")) > done:  # as the figures: about to be drawn again
                grid.unlink()
        for line in self.metrics.before:  # told already; what stands, still stands
            self.watch.after(int(line["iteration"]), line)
        if self.sampler is not None:
            text = "".join(f"{n}. {prompt}\n" for n, prompt in enumerate(self.sampler.prompts, 1))
            write_atomically(self.folder / "samples" / "prompts.txt", text)
        self.trackers = Trackers(self.folder, self.recipe, done)

    def _draw_teacher(self, sampler: Sampler) -> None:
        with self.teachers.frozen():
            self.teacher = sampler.teacher(self.folder / "samples" / "teacher.safetensors")

    def _is_sampled(self, iteration: int) -> bool:
        every = self.recipe.output.sample_every
        return every > 0 and (iteration == self.recipe.loop.iterations or iteration % every == 0)

    def _bounds(self) -> tuple[int, ...]:
        """Four equal intervals of the timesteps."""
        low, high = self.recipe.loop.t_min, self.recipe.loop.t_max
        return tuple(sorted({low + (high - low) * n // 4 for n in range(5)}))

    def _latents(self, x0: torch.Tensor) -> dict[str, float]:
        found = spread(x0)
        if len(x0) > 1:
            found["x0_diversity"] = diversity(x0) / (2 * x0[0].numel()) ** 0.5
        if self.teacher is not None:
            found["x0_std_of_teacher"] = found["x0_std"] / self.teacher.x0.std().item()
        return found

    def _resources(self, iteration: int) -> dict[str, float]:
        """Pace since the last logged iteration, with all that happened between."""
        (before, then), now = self._pace, time.monotonic()
        self._pace = (iteration, now)
        return {"iterations_per_s": (iteration - before) / max(now - then, 1e-9), "memory_gib": memory_gib()}

    def _write(self, iteration: int) -> None:
        self._reported = self.sampler is None  # then there is no page to look at
        warnings = self.watch.after(iteration, self._held)
        for warning in warnings:
            log.warning(warning)
        self.metrics.write(iteration, self._held)
        self.trackers.log(self._held, iteration)
        for warning in warnings:
            self.trackers.log_text("warnings", warning, iteration)

    def _show(self, iteration: int, samples: Samples) -> None:
        groups = [("teacher", self.teacher.tiles), (f"student, iteration {iteration}", samples.tiles)]
        grid = sample_grid(self.sampler.prompts, groups)
        scratch = self.folder / "samples" / ".grid.png"
        grid.save(scratch)
        scratch.replace(scratch.with_name(f"step-{iteration:08d}.png"))
        self.trackers.log_image("samples/grid", np.asarray(grid), iteration)

    def _report(self) -> None:
        write_report(self.folder, self.recipe, list(self.watch.standing.values()))
        self._reported = True
