"""One start of a run: its folder claimed, the models loaded, resumed where that was asked for, trained, exported."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from experiments.shapes.evaluate import one_step_accuracy
from training.config import Recipe
from training.config.errors import FailedElsewhere
from training.models.backbone import load_backbone
from training.trainer.distributed.accelerator import on_main, share_of_work, start_accelerator
from training.trainer.run_folder.describe import how_to_stop
from training.trainer.run_folder.resume_check import check_folder, claimed
from training.trainer.trainer import NotFinite, Run

log = logging.getLogger(__name__)


class Stop:
    """Ctrl-C and SIGTERM as a wish, granted between two iterations: in the middle of one, no state is worth saving."""

    wished = False
    exit_code = 128 + signal.SIGTERM  # where another process got the signal

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A second Ctrl-C ends the process at once. A second SIGTERM does not: a cluster's scheduler sends one to every
        process, and torchrun passes on its own."""
        before = {number: signal.signal(number, self._wish) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self.wished, self.exit_code = True, 128 + number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError):  # not by print: the signal may have come in the middle of one
            os.write(2, b"\nstopping after this iteration, with a checkpoint; Ctrl-C ends it at once, without one\n")


def start(recipe: Recipe, *, cpu: bool, resume: bool, accept_changes: bool) -> int:
    """Train by `recipe` until it is done or somebody stops it.

    Returns:
        The process's exit code: 0 when the student is exported; 128 + the signal's number when stopped, saved; 2 when
        it cannot go on, which was told.

    Raises:
        OSError, ValueError: what is wrong, in words for the user.
    """
    try:
        return _start(recipe, cpu=cpu, resume=resume, accept_changes=accept_changes)
    except NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
    except FailedElsewhere:
        pass
    return 2


def _start(recipe: Recipe, *, cpu: bool, resume: bool, accept_changes: bool) -> int:
    folder, stop = Path(recipe.output.folder), Stop()
    accelerator = start_accelerator(recipe, cpu=cpu)
    main_process = accelerator.is_main_process
    if not main_process:
        logging.getLogger("training").setLevel(logging.ERROR)
    with claimed(folder, accelerator):
        changes = on_main(
            accelerator, lambda: check_folder(folder, recipe, resume=resume, accept_changes=accept_changes)
        )
        if changes:
            log.warning("the recipe has changed since the run was started:\n  %s", "\n  ".join(changes))
        if main_process:
            print(recipe.to_toml(), flush=True)
        log.info("loading %s ...", recipe.teacher.path)
        run = Run(recipe, accelerator)
        if resume and run.resume():
            log.info("resumed at iteration %d of %d", run.iteration, recipe.loop.iterations)
            if run.iteration >= recipe.loop.iterations:
                log.info("nothing is left to train: the student is exported again")
        elif resume:
            log.info("nothing to resume in %s; starting anew", folder)
        log.info("%s", share_of_work(recipe, accelerator))
        if recipe.loop.compile and run.iteration < recipe.loop.iterations:
            run.check_compiled()
        if accelerator.num_processes > 1:
            log.info("to stop: %s", how_to_stop(accelerator.num_processes))
        with stop.listening():
            finished = run.train(stop)
        log.info("prompts: %s", ", ".join(f"{count} {name}" for name, count in run.prompts.counts.items()))
        if not finished:
            log.info("stopped; go on with --resume %s", folder)
            return stop.exit_code
        student = run.export()
    if main_process:
        print(f"student: {student}")
        if recipe.prompts.source == "shapes" and recipe.student.train == "full":
            _show_progress_made(recipe, student)
    return 0


def _show_progress_made(recipe: Recipe, student: Path) -> None:
    print("measuring one step on 200 partial captions of the small world (about a minute):")
    models = {"before (the teacher in one step)": recipe.teacher.path, "after (the student)": str(student)}
    for name, path in models.items():
        right, valid = one_step_accuracy(load_backbone(path), count=200)
        print(f"  {name:32s} all stated attributes right {right:.3f}, valid image {valid:.3f}")
