"""Distil a multi-step teacher into a one-step student, image-free (PG-SB, arXiv 2412.02687, Section 3)."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from training.backbone import load_backbone
from training.config import Recipe, RecipeError, load_recipe, recipe_names, split_words
from training.export import provenance
from training.prompts import open_run_prompts
from training.run import NotFinite, Run, open_teacher
from training.shapes.evaluate import one_step_accuracy
from training.state import checkpoints, recipe_changes

log = logging.getLogger("training.pgsb")


class Stop:
    """Ctrl-C and SIGTERM as a wish, granted between two iterations: in the middle of one, no state is worth saving."""

    wished = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A second signal acts as it always does."""
        before = {number: signal.signal(number, self._wish) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self.wished = True
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_intermixed_args(arguments)  # options may stand among the overrides
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _run(args)
    except (OSError, ValueError, NotFinite) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    recipe = load_recipe(*split_words([*args.recipe, *args.overrides]), here=True)
    folder = Path(recipe.output.folder)
    if args.dry_run:
        backbone, _ = open_teacher(recipe)
        open_run_prompts(recipe, backbone)
        print(recipe.to_toml())
        print(f"dry run: recipe, teacher and prompts are in order; the run would write to {folder}")
        return 0
    _check_folder(folder, recipe, resume=args.resume, accept_changes=args.accept_changes)
    run = Run(recipe, cpu=args.cpu)
    main_process = run.accelerator.is_main_process
    if not main_process:
        logging.getLogger("training").setLevel(logging.ERROR)
    if args.resume:
        if run.resume():
            log.info("resumed at iteration %d", run.iteration)
        else:
            log.info("nothing to resume in %s; starting anew", folder)
    if main_process:
        print(recipe.to_toml())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
        device = {
            "python": platform.python_version(),
            "device": str(run.accelerator.device),
            "distributed": run.accelerator.distributed_type.value,
            "processes": run.accelerator.num_processes,
        }
        (folder / "environment.json").write_text(json.dumps(device | provenance().versions, indent=1), encoding="utf-8")
    stop = Stop()
    with stop.listening():
        finished = run.train(stop)
        log.info("prompts: %s", ", ".join(f"{count} {name}" for name, count in run.prompts.counts.items()))
        if not finished:
            saved = run.save()
            log.info("stopped; saved %s; go on with --resume", saved)
            return 130
    student = run.export()
    if main_process and recipe.prompts.source == "shapes" and recipe.student.train == "full":
        print("one step on 200 partial captions of the small world:")
        for name, path in (("before (teacher)", recipe.teacher.path), ("after (student)", str(student))):
            right, valid = one_step_accuracy(load_backbone(path), count=200)
            print(f"  {name:16s} all stated attributes right {right:.3f}, valid image {valid:.3f}")
    if main_process:
        print(f"student: {student}")
    return 0


def _check_folder(folder: Path, recipe: Recipe, *, resume: bool, accept_changes: bool) -> None:
    """Raises RecipeError when the run's folder holds another run, or this one and no --resume was given."""
    saved = checkpoints(folder / "checkpoints")
    if not saved:
        return
    if not resume:
        raise RecipeError(f"{folder} holds a run already; continue it with --resume, or choose another output.folder")
    old = json.loads((saved[-1] / "state.json").read_text(encoding="utf-8")).get("recipe", {})
    changes = recipe_changes(old, recipe.model_dump(mode="json"))
    if changes and accept_changes:
        log.warning("the recipe has changed since the run was started:\n  %s", "\n  ".join(changes))
    elif changes:
        raise RecipeError(
            "the run was started with another recipe; use that one, or another output.folder, or go on with this "
            "one by --accept-changes:\n  " + "\n  ".join(changes)
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.pgsb", description=__doc__)
    parser.add_argument(
        "--recipe",
        nargs="+",
        default=["shapes"],
        metavar="NAME",
        help="recipes, later ones laid over earlier ones: .toml files, or of "
        f"{', '.join(recipe_names())} (default: shapes)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in output.folder, if there is one")
    parser.add_argument("--accept-changes", action="store_true", help="resume although the recipe has changed since")
    parser.add_argument("--dry-run", action="store_true", help="resolve and check everything, print it, and stop")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even where a GPU is at hand")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example guidance.kappa_max=3")
    return parser


if __name__ == "__main__":
    sys.exit(main())
