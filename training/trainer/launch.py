"""Starts a run: locks its folder, builds the trainer, resumes if asked to, trains and exports."""

from __future__ import annotations

import logging
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from training.config import ROOT, WORLDS, Recipe
from training.console import long_step
from training.trainer.build import OpenEvaluation, build_trainer, check_compiled_gradients
from training.trainer.distributed.accelerator import describe_batch_split, on_main, start_accelerator
from training.trainer.distributed.cuda_speed import use_cuda_settings
from training.trainer.run_folder.describe import hints, how_to_stop
from training.trainer.run_folder.lock import locked_run
from training.trainer.run_folder.resume_check import check_folder, is_older_than_tf32

log = logging.getLogger(__name__)


class StopSignal:
    """Turns Ctrl-C and SIGTERM into a request to stop after the current iteration, when the state can be saved."""

    requested = False
    exit_code = 128 + signal.SIGTERM  # if another process got the signal

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Handle signals within the block. A second Ctrl-C ends the process at once. A second SIGTERM does not, since
        a process may get one from the cluster's scheduler and another from torchrun."""
        before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested, self.exit_code = True, 128 + number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError):  # print is not safe in a signal handler
            os.write(2, b"\nstopping after this iteration, with a checkpoint; Ctrl-C again: at once, without one\n")


def start(
    recipe: Recipe, *, cpu: bool, resume: bool, accept_changes: bool, evaluation: OpenEvaluation | None = None
) -> int:
    """Train until the run is finished or stopped by a signal.

    Args:
        evaluation: opens what measures the student on a schedule; needed if recipe.evaluate.every is set.

    Returns:
        Exit code of the process: 0 = student exported; 128 + number of the signal = stopped and saved.

    Raises:
        OSError, ValueError: a message for the user.
        FailedElsewhere: an error in the first process, which reports it.
    """
    folder, stop = Path(recipe.output.folder), StopSignal()
    accelerator = start_accelerator(recipe, cpu=cpu)
    main_process = accelerator.is_main_process
    if not main_process:
        logging.getLogger("training").setLevel(logging.ERROR)
    with locked_run(folder, accelerator):
        changes = on_main(
            accelerator, lambda: check_folder(folder, recipe, resume=resume, accept_changes=accept_changes)
        )
        if changes:
            log.warning("the recipe has changed since the run was started:\n  %s", "\n  ".join(changes))
        if main_process:
            print(recipe.to_toml(), flush=True)
        log.info("%s", use_cuda_settings(recipe, accelerator.device, accelerator.distributed_type))
        with long_step(f"loading {recipe.teacher.path}"):
            trainer = build_trainer(recipe, accelerator, evaluation)
        for hint in hints(recipe, trainer.backbone.prediction_type):
            log.info("hint: %s", hint)
        with long_step("reading the checkpoint", at_once=False):
            resumed = resume and trainer.resume()
        if resumed:
            log.info("resumed at iteration %d of %d", trainer.iteration, recipe.loop.iterations)
            if accelerator.device.type == "cuda" and recipe.loop.precision == "no" and is_older_than_tf32(folder):
                log.warning(
                    "the run was started before loop.tf32 existed, with TF32 in convolutions and full fp32 in matrix "
                    "products; now it is %s in both. To change it: --accept-changes loop.tf32=%s",
                    *(("TF32", "false") if recipe.loop.tf32 else ("full fp32", "true")),
                )
            if trainer.iteration >= recipe.loop.iterations:
                log.info("training is finished already; exporting the student again")
        elif resume:
            log.info("nothing to resume in %s; starting from the beginning", folder)
        log.info("%s", describe_batch_split(recipe, accelerator))
        if recipe.loop.compile and trainer.iteration < recipe.loop.iterations:
            check_compiled_gradients(trainer)
        if accelerator.num_processes > 1:
            log.info("to stop: %s", how_to_stop(accelerator.num_processes))
        with stop.handle_signals():
            finished = trainer.train(lambda: stop.requested)
        log.info("prompts: %s", ", ".join(f"{count} {name}" for name, count in trainer.prompts.counts.items()))
        if not finished:
            log.info("stopped; continue with --resume %s", folder)
            return stop.exit_code
        with long_step("exporting the student", at_once=False):
            student = trainer.export()
    if main_process:
        print(f"student: {student}")
        world = recipe.prompts.source
        if world in WORLDS and recipe.student.train == "full" and (ROOT / "experiments").is_dir():
            command = f"python -m experiments.{world}.evaluate {shlex.quote(str(student))} --as student"
            print(f"to measure its accuracy: {command}")
    return 0
