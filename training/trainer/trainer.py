"""A distillation with its folder: built from a recipe, resumed or fresh, run to its end, on one process or many."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from training.config import Recipe
from training.config.errors import FailedElsewhere
from training.distill.clip_loss import ClipJudge, load_tiny_vae
from training.distill.compile import check_compiled, compile_blocks
from training.distill.ema import RunningMean
from training.distill.networks import Teachers, make_student, trainable
from training.distill.noise_levels import Levels
from training.distill.optimizers import make_optimizer, set_learning_rates
from training.distill.rng import Draws, draw
from training.distill.step import Distillation
from training.export import check_exportable, export_student
from training.models.backbone import Backbone, decode_latents, fingerprint, load_teacher
from training.models.loading import load_network
from training.prompts import open_run_prompts
from training.trainer.distributed.accelerator import on_main, rows_at_once, rows_of_process
from training.trainer.distributed.state_dicts import trained_state
from training.trainer.keep import capture, restore
from training.trainer.monitor.callbacks import Sight
from training.trainer.run_folder.checkpoint import load_state, make_ready, newest_whole, save_state

log = logging.getLogger(__name__)


class NotFinite(RuntimeError):
    """Losses or gradients are not finite numbers, again and again; none of these updates was made."""


class Stop(Protocol):
    """Whether somebody wants the run to stop."""

    wished: bool


def open_teacher(recipe: Recipe) -> tuple[Backbone, Levels]:
    """The teacher and its noise levels, with everything checked that can be checked before hours are spent.

    Raises:
        FileNotFoundError: no teacher.
        ValueError: one that does not fit the recipe, or whose student no loader could open.
    """
    backbone = load_teacher(recipe.teacher, text_cache=recipe.prompts.text_cache)
    check_exportable(backbone)
    width = None if backbone.text_encoder is None else backbone.text_encoder.config.hidden_size
    backbone.family.check(backbone.network, width, recipe.loop.latent_size)
    return backbone, Levels.from_schedule(backbone.alphas_cumprod(), recipe)


class Run:
    """See the module."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self.recipe, self.folder, self.iteration = recipe, Path(recipe.output.folder), 0
        self.counts = {"skipped": 0, "skipped_in_a_row": 0}
        self.distance: float | None = None
        self.accelerator = accelerator
        self._own_rows = rows_of_process(recipe, accelerator)
        self._sharded = sharded = accelerator.distributed_type == DistributedType.FSDP

        self.backbone, levels = open_teacher(recipe)
        self.levels = levels.to(accelerator.device)
        self.teacher_fingerprint = fingerprint(self.backbone.network)
        self.prompts = open_run_prompts(recipe, self.backbone)
        full = recipe.student.train == "full"
        init = load_network(recipe.student.init, self.backbone) if recipe.student.init else None
        # in fp32, before the teacher no longer is
        student = make_student(self.backbone.network, recipe, weights=init) if full else None
        half = recipe.loop.precision == "bf16" and not sharded  # FSDP wants one dtype in a group of weights
        self.backbone.to(accelerator.device, torch.bfloat16 if half else None)
        student = student or make_student(self.backbone.network, recipe, weights=init, share=not sharded)
        self.teachers = Teachers(self.backbone.network, recipe)
        self.student, student_optimizer = self._prepare(student, recipe.student.learning_rate)
        lora_teacher, lora_optimizer = self._prepare(self.backbone.network, recipe.lora.learning_rate)
        decay = recipe.student.ema_decay
        self.mean = RunningMean(trainable(self.student), decay) if decay else None
        self.sight = Sight(
            folder=self.folder,
            recipe=recipe,
            accelerator=accelerator,
            backbone=self.backbone,
            teachers=self.teachers,
            teacher_fingerprint=self.teacher_fingerprint,
            levels=self.levels,
        )
        negatives = list(recipe.student.nasa_negatives) if recipe.student.nasa_alpha_max else []
        self.distillation = Distillation(
            recipe=recipe,
            accelerator=accelerator,
            family=self.backbone.family,
            student=self.student,
            teachers=self.teachers,
            lora_teacher=lora_teacher,
            student_optimizer=student_optimizer,
            lora_optimizer=lora_optimizer,
            levels=self.levels,
            prediction_type=self.backbone.prediction_type,
            null=self.backbone.encode([""]),
            negatives=self.backbone.encode(negatives) if negatives else None,
            clip=self._clip_judge(),
        )

    def check_compiled(self) -> None:
        """Compile, and compare; see `training.distill.compile`.

        Raises:
            RecipeError, FailedHere: it is wrong, or cannot be done.
        """
        log.info("compiling, and comparing gradients with those of the uncompiled networks; this takes minutes ...")
        rows = slice(0, rows_at_once(self.recipe, self.accelerator.num_processes))
        prompts = open_run_prompts(self.recipe, self.backbone).take(rows.stop)  # leaves the run's own where they are
        draws = self._draw().rows(rows, self.accelerator.device)
        check_compiled(self.distillation, self.backbone.encode(prompts), draws)
        log.info("gradients agree; the first iteration compiles what is left")

    def train(self, stop: Stop) -> bool:
        """Run to the last iteration, or until a stop is wished for in any process, and save; save and draw on the way.

        Returns:
            Whether the last iteration was reached.

        Raises:
            NotFinite: too many iterations in a row had a loss or gradient that is not finite.
            OSError: the last checkpoint cannot be written.
        """
        loop, output = self.recipe.loop, self.recipe.output
        self.sight.start(self.iteration)
        try:
            while self.iteration < loop.iterations and not self._stopped(stop):
                self._iterate()
                last = self.iteration == loop.iterations
                if output.sample_every and (last or self.iteration % output.sample_every == 0):
                    self.draw_samples()
                if self.iteration % output.save_every == 0 and not last:
                    self._try_to_save()
            log.info("saved %s", self.save())
        finally:
            self.sight.close()
        return self.iteration >= loop.iterations

    def _iterate(self) -> None:
        recipe, d = self.recipe, self.distillation
        self.distance = None  # it was of the state before
        set_learning_rates(recipe, self.iteration, student=d.student_optimizer, lora=d.lora_optimizer)
        prompts = self.prompts.take(recipe.loop.batch_size)[self._own_rows]
        drawn = self._draw()
        own = drawn.rows(self._own_rows, self.accelerator.device)
        outcome = d.run(prompts, self.backbone.encode(prompts), own, self._clip_weight())
        self.iteration += 1
        if self.mean is not None and outcome.skipped != "student":
            self.mean.update()
        self._count(outcome.skipped)
        figures = outcome.figures | self._kappas(drawn) | self._skipped()
        self.sight.after_iteration(self.iteration, figures, outcome.x0, outcome.gap, own.t)

    def _draw(self) -> Draws:
        """The iteration's random numbers, for the whole batch."""
        return draw(
            self.recipe,
            self.iteration,
            channels=self.backbone.latent_channels,
            num_train_timesteps=self.backbone.schedule.num_train_timesteps,
            processes=self.accelerator.num_processes,
        )

    def save(self) -> Path:
        """A checkpoint of now.

        Raises:
            OSError: it cannot be written; names the last good one.
        """
        state = capture(self)

        def write() -> Path:
            try:
                return save_state(self.folder / "checkpoints", state, self.recipe)
            except OSError as error:
                raise OSError(
                    f"iteration {state.iteration}: no checkpoint could be written ({error}); {self._last_good()}"
                ) from error

        return on_main(self.accelerator, write)

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint, if there is any checkpoint.

        Raises:
            RecipeError: the teacher has changed since.
            ValueError: no checkpoint is whole.
        """
        found = on_main(self.accelerator, lambda: make_ready(self.folder / "checkpoints"))
        if found is not None:
            restore(self, load_state(found))
        return found is not None

    def averaged(self) -> AbstractContextManager[None]:
        """The running mean in the student's place."""
        return nullcontext() if self.mean is None else self.mean.in_place()

    def draw_samples(self) -> None:
        with self.averaged():
            self.distance = self.sight.after_samples(self.iteration, self.accelerator.unwrap_model(self.student))

    def export(self) -> Path:
        """The averaged student as a file for PG-SB Loader.

        Raises:
            OSError: it cannot be written; names the checkpoint that holds it.
        """
        with self.averaged():
            weights = {name: weight.clone() for name, weight in trained_state(self.student).items()}
        path = self.folder / "export" / "student.safetensors"

        def write() -> Path:
            teacher = load_teacher(self.recipe.teacher, t5=None)  # the one in memory carries adapters
            try:
                return export_student(path, teacher, weights, self.recipe, self.iteration)
            except OSError as error:
                raise OSError(
                    f"{path} could not be written ({error}); the run is done, and {self._last_good()}: export it by "
                    f"python -m training.export {self.folder} --out FILE"
                ) from error

        return on_main(self.accelerator, write)

    def _clip_judge(self) -> ClipJudge | None:
        section, vae = self.recipe.clip, self.backbone.vae
        if section.weight == 0:
            return None
        if section.decoder:
            vae = load_tiny_vae(section.decoder).to(vae.device, vae.dtype)
        return ClipJudge(section, partial(decode_latents, vae), self.accelerator.device)

    def _prepare(self, network: torch.nn.Module, rate: float) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        loop = self.recipe.loop
        # on a CPU it costs more than it gives (benchmarks/train_step.py)
        contiguous = self._sharded or loop.optimizer == "adamw8bit"
        if loop.channels_last and self.accelerator.device.type == "cuda" and not contiguous:
            network.to(memory_format=torch.channels_last)
        if loop.compile:
            compile_blocks(network)
        return self.accelerator.prepare(network, make_optimizer(trainable(network), rate, self.recipe))

    def _stopped(self, stop: Stop) -> bool:
        if stop.wished:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def _try_to_save(self) -> None:
        """A full disk is no reason to lose what is in memory: say so, and try again at the next checkpoint."""
        try:
            self.save()
        except OSError as error:
            log.warning("%s. The run goes on, and tries again in %d iterations", error, self.recipe.output.save_every)
        except FailedElsewhere:
            pass

    def _last_good(self) -> str:
        return f"the last good checkpoint is {newest_whole(self.folder / 'checkpoints') or 'none yet'}"

    def _count(self, skipped: str) -> None:
        counts = self.counts
        counts["skipped_in_a_row"] = counts["skipped_in_a_row"] + 1 if skipped else 0
        if not skipped:
            return
        counts["skipped"] += 1
        log.warning(
            "iteration %d: the %s's loss or gradient is not finite; no update was made", self.iteration, skipped
        )
        if counts["skipped_in_a_row"] >= self.recipe.loop.max_skipped:
            on_main(self.accelerator, lambda: self._give_up(skipped))

    def _give_up(self, skipped: str) -> None:
        raise NotFinite(
            f"in {self.counts['skipped_in_a_row']} iterations in a row a loss or gradient was not finite (the last: "
            f"the {skipped}'s); none of these updates was made; {self._last_good()}. Go on from it with a lower "
            "learning rate, --resume and --accept-changes"
        )

    def _kappas(self, drawn: Draws) -> dict[str, float]:
        """Each process's kappa, where they differ."""
        processes, guidance = self.accelerator.num_processes, self.recipe.guidance
        fixed = guidance.teacher_kappa is not None and guidance.lora_kappa is not None
        if guidance.kappa_per == "iteration" or processes == 1 or fixed:
            return {}
        return {f"kappa_{n}": kappas[0].item() for n, kappas in enumerate(drawn.kappa.chunk(processes))}

    def _skipped(self) -> dict[str, float]:
        return {"skipped": float(self.counts["skipped"])} if self.counts["skipped"] else {}

    def _clip_weight(self) -> float:
        clip = self.recipe.clip
        last = clip.weight if clip.final_weight is None else clip.final_weight
        return clip.weight + (last - clip.weight) * self.iteration / self.recipe.loop.iterations
