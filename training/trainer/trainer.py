"""The training loop: runs iterations, saves, resumes and exports, in one process or many."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accelerate.utils import DistributedType

from training.config import RecipeError
from training.config.errors import FailedElsewhere, FailedHere
from training.console import long_step
from training.distill.clip_loss import clip_weight
from training.distill.draws_ahead import DrawsAhead
from training.distill.ema import EMA
from training.distill.optimizers import set_learning_rates
from training.distill.rng import Draws, draw, fresh_batches, kappa_of_processes
from training.distill.step import Distillation
from training.models.backbone import Backbone
from training.prompts.source import PromptSource
from training.trainer.distributed.accelerator import on_main, rows_of_process
from training.trainer.export import export_run
from training.trainer.monitor.callbacks import Evaluation, Monitor
from training.trainer.network_states import averaged, load_networks, networks_state, optimizers_state
from training.trainer.run_folder.background import BackgroundWriter, snapshot
from training.trainer.run_folder.checkpoint import RunState, load_state, make_ready, newest_intact
from training.trainer.run_folder.parts import all_see, save_parts
from training.trainer.run_folder.write import save_state

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Trainer:
    """A run and its state. `build_trainer` makes one from a recipe.

    ema: None if the recipe averages no weights. evaluation: None without evaluate.every. compared: the student's
    samples with the teacher's, empty unless the last iteration was a sampling point. counts: iterations skipped so far,
    and in a row.
    """

    backbone: Backbone
    teacher_fingerprint: str
    prompts: PromptSource
    distillation: Distillation
    ema: EMA | None
    evaluation: Evaluation | None = None
    iteration: int = 0
    compared: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"skipped": 0, "skipped_in_a_row": 0})

    def __post_init__(self) -> None:
        d = self.distillation
        self.recipe, self.accelerator = d.recipe, d.accelerator
        self.monitor = Monitor(
            distillation=d,
            backbone=self.backbone,
            teacher_fingerprint=self.teacher_fingerprint,
            evaluation=self.evaluation,
        )
        self.folder = Path(self.recipe.output.folder)
        self._saved, self._in_parts = self.folder / "checkpoints", False
        self._own_rows = rows_of_process(self.recipe, self.accelerator)
        self._draws = DrawsAhead(self._draw, self.recipe.loop.iterations)
        self._writer = BackgroundWriter()

    def train(self, stop_requested: Callable[[], bool]) -> bool:
        """Train until the last iteration, or until any process requests a stop; then save a checkpoint.

        Args:
            stop_requested: asked before each iteration.

        Returns:
            Whether the last iteration was reached.

        Raises:
            FailedHere: too many iterations in a row had a loss or gradient that is not finite; in the first process.
            FailedElsewhere: in the others.
            OSError: the last checkpoint cannot be written.
        """
        loop, output = self.recipe.loop, self.recipe.output
        self.monitor.start(self.iteration)
        self._in_parts = self._can_save_in_parts()
        try:
            while self.iteration < loop.iterations and not self._should_stop(stop_requested()):
                self._iterate()
                last = self.iteration == loop.iterations
                if self.monitor.measures_at(self.iteration):
                    self.draw_samples()
                if self.iteration % output.save_every == 0 and not last:
                    self._try_to_save()
            self._finish_saving()
            log.info("saved %s", self.save())
        finally:
            self._writer.close()
            self.monitor.close()
        return self.iteration >= loop.iterations

    def _iterate(self) -> None:
        recipe, d = self.recipe, self.distillation
        self.compared = {}
        set_learning_rates(recipe, self.iteration, student=d.student_optimizer, lora=d.lora_optimizer)
        prompts = self.prompts.take(recipe.loop.batch_size)[self._own_rows]
        draws = self.draw()
        own = draws.rows(self._own_rows, self.accelerator.device)
        text = self.backbone.encode(prompts)
        more = [self.prompts.take(recipe.loop.batch_size)[self._own_rows] for _ in range(fresh_batches(recipe))]
        fresh = [self.backbone.encode(prompts) for prompts in more]
        outcome = d.run(prompts, text, own, clip_weight(recipe, self.iteration), fresh)
        self.iteration += 1
        if self.ema is not None and outcome.skipped != "student":
            self.ema.update()
        self._count_skipped(outcome.skipped)
        metrics = outcome.metrics | kappa_of_processes(recipe, draws, self.accelerator.num_processes)
        if len(recipe.student.steps) > 1:
            metrics["step"] = float(draws.step + 1)
        if self.counts["skipped"]:
            metrics["skipped"] = float(self.counts["skipped"])
        self.monitor.after_iteration(self.iteration, metrics, outcome.x0, outcome.gap, own.t)

    def draw(self) -> Draws:
        """The next iteration's random numbers, for the whole batch."""
        return self._draws.of(self.iteration)

    def _draw(self, iteration: int) -> Draws:
        return draw(
            self.recipe,
            iteration,
            channels=self.backbone.latent_channels,
            num_train_timesteps=self.backbone.schedule.num_train_timesteps,
            processes=self.accelerator.num_processes,
        )

    def draw_samples(self) -> None:
        """Sample and evaluate the averaged student, where this is due."""
        with averaged(self.ema, self.distillation.student):
            student = self.accelerator.unwrap_model(self.distillation.student)
            self.compared = self.monitor.after_samples(self.iteration, student)

    def state_dict(self, *, whole: bool = True) -> RunState:
        """Everything that a resumed run needs. Call it in every process; only the first gets the whole state, or each
        its part."""
        return RunState(
            iteration=self.iteration,
            networks=networks_state(self.distillation, self.ema, whole=whole),
            optimizers=optimizers_state(self.distillation, whole=whole),
            position=self.prompts.state_dict(),
            counts=self.counts | {"averaged": self.ema.updates if self.ema is not None else 0},
            teacher=self.teacher_fingerprint,
            distance=self.compared.get("sample_distance"),
            diversity=self.compared.get("sample_diversity"),
        )

    def load_state_dict(self, state: RunState) -> None:
        """Continue from `state`, in every process. Settings that were changed in the recipe take effect.

        Raises:
            RecipeError: the teacher has changed.
            ValueError: the weights are not those that this run trains.
        """
        if state.teacher != self.teacher_fingerprint:
            raise RecipeError(
                f"the teacher {self.recipe.teacher.path!r} is not the one that this run was started with (its weights "
                "differ); give the old teacher, or start another run in another output.folder"
            )
        load_networks(self.distillation, self.ema, state)
        try:
            self.prompts.load_state_dict(state.position)
        except (KeyError, TypeError):
            log.warning("prompts.source is of another kind than when the run was started; it starts from its beginning")
        self.counts, self.iteration = state.counts, state.iteration

    def save(self) -> Path:
        """Write a checkpoint, and return its folder.

        Raises:
            OSError: it cannot be written; the message names the last good one.
        """
        state = self.state_dict(whole=not self._in_parts)
        with long_step("saving a checkpoint", at_once=False):
            if self._in_parts:
                return self._named(state, lambda: save_parts(self._saved, state, self.recipe, self.accelerator))
            return on_main(self.accelerator, lambda: self._write(state))

    def _can_save_in_parts(self) -> bool:
        """Whether each process writes its part of a checkpoint: under FSDP, unless they are written beside the
        training, from a copy that the first process has gathered."""
        if self.accelerator.distributed_type != DistributedType.FSDP or self.recipe.output.background_save:
            return False
        if not (shared := all_see(self.accelerator, self.folder / "recipe.toml")):
            log.warning("%s is not on a disk that all processes see, so the first one gathers checkpoints", self.folder)
        return shared

    def _finish_saving(self) -> None:
        """Wait, in every process, until no checkpoint is being written; raises the thread's error in all of them."""
        if self.recipe.output.background_save:
            with long_step("waiting for the checkpoint that is being written", at_once=False):
                on_main(self.accelerator, self._writer.finish)

    def _write(self, state: RunState) -> Path:
        return self._named(state, lambda: save_state(self._saved, state, self.recipe))

    def _named(self, state: RunState, save: Callable[[], Path]) -> Path:
        """`save()`; its error names the last good checkpoint."""
        try:
            return save()
        except OSError as error:
            raise OSError(
                f"iteration {state.iteration}: no checkpoint could be written ({error}); {self._last_good()}"
            ) from error

    def resume(self) -> bool:
        """Continue from the newest intact checkpoint. Returns False if there are no checkpoints.

        Raises:
            RecipeError: the teacher has changed.
            ValueError: every checkpoint is damaged.
        """
        found = on_main(self.accelerator, lambda: make_ready(self._saved))
        if found is not None:
            self.load_state_dict(load_state(found))
        return found is not None

    def export(self) -> Path:
        """Write the averaged student of the best checkpoint as a file for PG-SB Loader. Call it after `run`.

        Raises:
            OSError: it cannot be written; the message names the checkpoint that holds the student.
        """
        path = self.folder / "export" / "student.safetensors"

        def write() -> Path:
            try:
                _, summary = export_run(self.folder, "best", path, recipe=self.recipe)
                log.info("exported %s", summary)
                return path
            except OSError as error:
                raise OSError(
                    f"{path} could not be written ({error}); training is finished, and {self._last_good()}: export it "
                    f"with python -m training.export {self.folder} --checkpoint latest --out FILE"
                ) from error

        return on_main(self.accelerator, write)

    def _should_stop(self, requested: bool) -> bool:
        """Whether a stop is requested in any process."""
        if requested:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def _try_to_save(self) -> None:
        """Save, or begin to save in the background, once the checkpoint before is written."""
        if not self.recipe.output.background_save:
            self._unless_the_disk_is_full(self.save)
            return
        self._finish_saving()
        d = self.distillation
        state = snapshot(self.state_dict(), [*d.student.parameters(), *d.lora_teacher.parameters()])
        if self.accelerator.is_main_process:
            self._writer.begin(lambda: self._unless_the_disk_is_full(lambda: self._write(state)))

    def _unless_the_disk_is_full(self, save: Callable[[], Path]) -> None:
        """If the disk is full, log a warning and retry at the next checkpoint instead of losing the run."""
        try:
            save()
        except OSError as error:
            log.warning("%s. Training continues and tries again in %d iterations", error, self.recipe.output.save_every)
        except FailedElsewhere:
            pass

    def _last_good(self) -> str:
        return f"the last good checkpoint is {newest_intact(self.folder / 'checkpoints') or 'none yet'}"

    def _count_skipped(self, skipped: str) -> None:
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
        self._writer.close()  # what is being written may become the last good one, and delete the one before it
        raise FailedHere(
            f"in {self.counts['skipped_in_a_row']} iterations in a row a loss or gradient was not finite (the last: "
            f"the {skipped}'s); none of these updates was made; {self._last_good()}. Continue from it with a lower "
            "learning rate, --resume and --accept-changes"
        )
