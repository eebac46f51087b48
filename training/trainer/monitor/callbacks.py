"""Monitoring of a run: progress bar, metrics, sample grids, warnings, report page. Nothing here changes the weights."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from snoopi_core.formats.atomic import replacing, write_atomically
from training.config import Recipe
from training.console import long_step
from training.distill.step import Distillation
from training.models.backbone import Backbone
from training.prompts import different_prompts
from training.trainer.distributed.accelerator import on_main
from training.trainer.monitor.clip_score import clip_score
from training.trainer.monitor.collapse import CollapseDetector
from training.trainer.monitor.latent_stats import compare, diversity, gap_by_timestep, latent_stats
from training.trainer.monitor.metrics_log import MetricsLog
from training.trainer.monitor.progress import Progress, memory_gib
from training.trainer.monitor.report import write_report
from training.trainer.monitor.sample_grid import sample_grid
from training.trainer.monitor.samples import Sampler, Samples
from training.trainer.monitor.trackers import Trackers
from training.trainer.run_folder.describe import describe_run

log = logging.getLogger(__name__)
PROMPTS = 8  # sampled if the recipe names none


def first_prompts(recipe: Recipe) -> list[str]:
    """The first `PROMPTS` different prompts of a run, or all if its source has fewer."""
    return different_prompts(recipe.prompts, recipe.seed, PROMPTS)


class Evaluation(Protocol):
    """Measures the averaged student on a schedule; `training.evaluate.scheduled` has one. Called in every process."""

    def start(self) -> None:
        """Check that everything is there. Raises, in the first process, OSError or ValueError for the user."""

    def measure(self, iteration: int, student: nn.Module) -> dict[str, float]:
        """Figures by name, in the first process."""


@dataclass(kw_only=True)
class Monitor:
    """The training loop's callbacks. The loop calls them in every process.

    After `start`, an error in monitoring does not end the run: a full disk, an unreachable tracker, a metric that
    cannot be computed. Each new error is logged once, and `close` logs how often it came.
    """

    distillation: Distillation
    backbone: Backbone
    teacher_fingerprint: str
    evaluation: Evaluation | None = None

    def __post_init__(self) -> None:
        self.recipe, self.accelerator = self.distillation.recipe, self.distillation.accelerator
        self.folder, output = Path(self.recipe.output.folder), self.recipe.output
        self.main = self.accelerator.is_main_process
        self.detector = CollapseDetector(self.recipe.loop.iterations)
        self._report_is_current = True
        self._failures: Counter[str] = Counter()
        self.sampler: Sampler | None = None
        self.teacher: Samples | None = None
        if output.sample_every:
            self.sampler = Sampler(
                list(dict.fromkeys(output.sample_prompts)) or first_prompts(self.recipe),
                recipe=self.recipe,
                accelerator=self.accelerator,
                backbone=self.backbone,
                teacher_fingerprint=self.teacher_fingerprint,
                levels=self.distillation.levels,
            )

    def start(self, done: int) -> None:
        """Call before the first iteration of this start; earlier ones have done `done` iterations.

        Raises:
            RecipeError: W&B refuses the run, or something that the evaluation needs is missing.
            FailedElsewhere: an error in the first process.
        """
        if self.evaluation is not None:
            self.evaluation.start()
        on_main(self.accelerator, lambda: self._open_files(done))
        self._metrics: dict[str, float] = {}  # of the last logged iteration
        if self.sampler is not None:
            drawing = long_step("drawing the teacher's samples", at_once=False)
            with self.distillation.teachers.frozen(), drawing:
                self.teacher = self.sampler.teacher(self.folder / "samples" / "teacher.safetensors")
        self.progress = Progress(done, self.recipe.loop.iterations, show=self.main)
        self._last_logged = (done, time.monotonic())

    def samples_at(self, iteration: int) -> bool:
        """Whether `iteration` is a sampling point."""
        return self._is_due(iteration, self.recipe.output.sample_every)

    def evaluates_at(self, iteration: int) -> bool:
        """Whether the student is evaluated after `iteration`."""
        return self.evaluation is not None and self._is_due(iteration, self.recipe.evaluate.every)

    def measures_at(self, iteration: int) -> bool:
        """Whether `after_samples` must be called after `iteration`."""
        return self.samples_at(iteration) or self.evaluates_at(iteration)

    def _is_due(self, iteration: int, every: int) -> bool:
        return every > 0 and (iteration == self.recipe.loop.iterations or iteration % every == 0)

    def after_iteration(
        self, iteration: int, metrics: dict[str, float], x0: torch.Tensor, gap: torch.Tensor, t: torch.Tensor
    ) -> None:
        """Call after every iteration.

        Args:
            metrics: means over the whole batch.
            x0: images of this process's rows (B, C, h, w). gap: their mean |g| (B,). t: their timesteps (B,).
        """
        measured = self.measures_at(iteration)
        logged = measured or iteration == 1 or iteration % self.recipe.output.log_every == 0
        if logged:
            x0, gap, t = self.accelerator.gather((x0.contiguous(), gap, t))
        if not self.main:
            return
        with self._log_errors(iteration):
            self.progress.update(metrics)
        if not logged:
            return
        with self._log_errors(iteration):
            gaps = gap_by_timestep(gap, t, self._timestep_bounds())
            self._metrics = metrics | self._latent_metrics(x0) | gaps | self._resources(iteration)
            if not measured:  # else written by after_samples, in one line with its metrics
                self._write(iteration)

    def after_samples(self, iteration: int, student: nn.Module) -> dict[str, float]:
        """Call where `measures_at`, after `after_iteration`: samples and evaluates the averaged student.

        Returns:
            What comparing its samples to the teacher's has found (`latent_stats.compare`, and `clip_score` if the run
            has a CLIP loss), in the first process; empty in the others, if this is no sampling point, and if the
            samples are not finite.
        """
        found, samples = {}, None
        if self.samples_at(iteration) and self.sampler is not None and self.teacher is not None:
            with long_step("drawing the student's samples", at_once=False):
                samples = self.sampler.student(student)
            with self._log_errors(iteration):
                found = self._compare(iteration, samples) if self.main else {}
        measured: dict[str, float] = {}
        if self.evaluation is not None and self.evaluates_at(iteration):
            with self._log_errors(iteration), self.progress.paused():
                measured = self.evaluation.measure(iteration, student)
        if not self.main:
            return {}
        with self._log_errors(iteration):
            self._metrics |= found | measured
            self._write(iteration)
            if samples is not None:
                self._save_grid(iteration, samples)
            if self.sampler is not None:
                self._write_report()
        return found

    def _compare(self, iteration: int, samples: Samples) -> dict[str, float]:
        if not samples.x0.isfinite().all():
            log.warning("iteration %d: the averaged student's samples are not finite numbers", iteration)
            return {}
        found = compare(samples.x0, self.teacher.x0)
        if (clip := self.distillation.clip) is not None:
            drawn = {"sample_clip": samples, "sample_clip_of_teacher": self.teacher}
            found |= {name: clip_score(clip, of.tiles, self.sampler.prompts) for name, of in drawn.items()}
        return found

    def close(self) -> None:
        """Call at the end of the run, also after an error."""
        if not self.main:
            return
        report = [] if self._report_is_current else [self._write_report]
        for last in (self.progress.close, self.trackers.close, *report):
            with self._log_errors():
                last()
        for error, count in self._failures.items():
            if count > 1:
                log.warning("metrics or samples could not be written %d times (%s)", count, error)

    @contextmanager
    def _log_errors(self, iteration: int | None = None) -> Iterator[None]:
        """Log errors of the main process's own work, since raising would leave the other processes waiting. In another
        process an error ends the run."""
        try:
            yield
        except Exception as exception:
            if not self.main:
                raise
            error = f"{type(exception).__name__}: {exception}"
            self._failures[error] += 1
            if self._failures[error] == 1:
                when = "at the end" if iteration is None else f"iteration {iteration}"
                log.warning("%s: metrics or samples cannot be written (%s)", when, error)

    def _open_files(self, done: int) -> None:
        """Open and prepare the run's files; only in the first process."""
        describe_run(self.folder, self.recipe, self.accelerator, done)
        self.metrics_log = MetricsLog(self.folder / "metrics.jsonl", done)
        for grid in (self.folder / "samples").glob("step-*.png"):
            if int(grid.stem.removeprefix("step-")) > done:  # this iteration is repeated
                grid.unlink()
        for line in self.metrics_log.before:  # their warnings were logged at the time
            self.detector.update(int(line["iteration"]), line)
        if self.sampler is not None:
            text = "".join(f"{n}. {prompt}\n" for n, prompt in enumerate(self.sampler.prompts, 1))
            write_atomically(self.folder / "samples" / "prompts.txt", text)
        self.trackers = Trackers(self.folder, self.recipe, done)

    def _timestep_bounds(self) -> tuple[int, ...]:
        """Four equal intervals of the timesteps."""
        low, high = self.recipe.loop.t_min, self.recipe.loop.t_max
        return tuple(sorted({low + (high - low) * n // 4 for n in range(5)}))

    def _latent_metrics(self, x0: torch.Tensor) -> dict[str, float]:
        found = latent_stats(x0)
        if len(x0) > 1:
            found["x0_diversity"] = diversity(x0) / (2 * x0[0].numel()) ** 0.5
        if self.teacher is not None:
            found["x0_std_of_teacher"] = found["x0_std"] / self.teacher.x0.std().item()
        return found

    def _resources(self, iteration: int) -> dict[str, float]:
        """Speed since the last logged iteration, sampling and saving included."""
        (before, then), now = self._last_logged, time.monotonic()
        self._last_logged = (iteration, now)
        return {"iterations_per_s": (iteration - before) / max(now - then, 1e-9), "memory_gib": memory_gib()}

    def _write(self, iteration: int) -> None:
        self._report_is_current = self.sampler is None  # without samples there is no report
        for warning in self.detector.update(iteration, self._metrics):
            log.warning(warning)
            self.trackers.log_text("warnings", warning, iteration)
        self.metrics_log.write(iteration, self._metrics)
        self.trackers.log(self._metrics, iteration)

    def _save_grid(self, iteration: int, samples: Samples) -> None:
        groups = [("teacher", self.teacher.tiles), (f"student, iteration {iteration}", samples.tiles)]
        grid = sample_grid(self.sampler.prompts, groups)
        with replacing(self.folder / "samples" / f"step-{iteration:08d}.png") as temporary:
            grid.save(temporary, format="png")
        self.trackers.log_image("samples/grid", np.asarray(grid), iteration)

    def _write_report(self) -> None:
        write_report(self.folder, self.recipe, list(self.detector.active.values()))
        self._report_is_current = True
