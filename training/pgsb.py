"""Distil a multi-step teacher into a one-step student, image-free (PG-SB, arXiv 2412.02687, Section 3)."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from training.backbone import load_backbone
from training.claim import check_folder, claimed
from training.config import Recipe, RecipeError, load_recipe, recipe_names, split_words
from training.dry_run import dry_run
from training.keep import FailedElsewhere, on_main
from training.run import NotFinite, Run
from training.shapes.evaluate import one_step_accuracy

log = logging.getLogger("training.pgsb")


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


def main(arguments: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    for n, word in enumerate(words):
        if word == "--resume" and split_words(words[n + 1 : n + 2])[1]:
            words[n] = "--resume="  # an override comes next, and no folder
    args = _parser().parse_intermixed_args(words)  # options may stand among the overrides
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _run(args)
    except (OSError, ValueError, NotFinite) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FailedElsewhere:
        return 2


def _run(args: argparse.Namespace) -> int:
    recipe = _recipe(args)
    folder = Path(recipe.output.folder)
    if args.dry_run:
        dry_run(recipe, cpu=args.cpu)
        return 0
    resume, accept = args.resume is not None, args.accept_changes
    check_folder(folder, recipe, resume=resume, accept_changes=accept)  # before minutes are spent on loading
    run, stop = Run(recipe, cpu=args.cpu), Stop()
    main_process = run.accelerator.is_main_process
    if not main_process:
        logging.getLogger("training").setLevel(logging.ERROR)
    with claimed(folder, run.accelerator):
        # again: what was there may have been another run's beginning
        changes = on_main(run.accelerator, lambda: check_folder(folder, recipe, resume=resume, accept_changes=accept))
        if changes:
            log.warning("the recipe has changed since the run was started:\n  %s", "\n  ".join(changes))
        if resume and run.resume():
            log.info("resumed at iteration %d", run.iteration)
        elif resume:
            log.info("nothing to resume in %s; starting anew", folder)
        if main_process:
            print(recipe.to_toml())
        with stop.listening():
            finished = run.train(stop)
        log.info("prompts: %s", ", ".join(f"{count} {name}" for name, count in run.prompts.counts.items()))
        if not finished:
            log.info("stopped; go on with --resume %s", folder)
            return stop.exit_code
        student = run.export()
    if main_process and recipe.prompts.source == "shapes" and recipe.student.train == "full":
        print(f"student: {student}")
        print("measuring one step on 200 partial captions of the small world (about a minute):")
        models = {"before (the teacher in one step)": recipe.teacher.path, "after (the student)": str(student)}
        for name, path in models.items():
            right, valid = one_step_accuracy(load_backbone(path), count=200)
            print(f"  {name:32s} all stated attributes right {right:.3f}, valid image {valid:.3f}")
    elif main_process:
        print(f"student: {student}")
    return 0


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that was asked for, or the one that the run to be resumed has saved."""
    names, overrides = split_words([*args.recipe, *args.overrides])
    if not args.resume:
        return load_recipe(names or "shapes", overrides, here=True)
    if names:
        raise RecipeError(
            f"got --recipe {' '.join(names)} and --resume {args.resume}, which has its own; leave one of them out: "
            "--resume alone goes on in the recipe's output.folder"
        )
    saved = Path(args.resume) / "recipe.toml"
    if not saved.is_file():
        raise RecipeError(f"--resume {args.resume}: no run there, its recipe.toml is missing")
    return load_recipe(str(saved), [*overrides, f"output.folder={args.resume}"], here=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.pgsb", description=__doc__)
    parser.add_argument(
        "--recipe",
        nargs="+",
        default=[],
        metavar="NAME",
        help="recipes, later ones laid over earlier ones: .toml files, or of "
        f"{', '.join(recipe_names())} (default: shapes)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="go on with the run in FOLDER, by the recipe that it has saved there; without FOLDER: by the recipe and "
        "overrides given, in their output.folder, from the start where nothing is saved there",
    )
    parser.add_argument("--accept-changes", action="store_true", help="resume although the recipe has changed since")
    parser.add_argument("--dry-run", action="store_true", help="resolve and check everything, print it, and stop")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even where a GPU is at hand")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example guidance.kappa_max=3")
    return parser


if __name__ == "__main__":
    sys.exit(main())
