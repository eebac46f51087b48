"""Distil a multi-step teacher into a student of one step or a few, image-free (PG-SB, arXiv 2412.02687, Section 3)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from training.config import Recipe, RecipeError, load_recipe, recipe_names, split_words
from training.config.errors import FailedElsewhere
from training.console import long_step, report, set_up_console

DEFAULT_RECIPE = "avatars"  # the world of the bundled student


def main(arguments: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    for n, word in enumerate(words):
        if word == "--resume" and split_words(words[n + 1 : n + 2])[1]:
            words[n] = "--resume="  # the next word is an override, not a folder
    set_up_console()
    args = _parser().parse_intermixed_args(words)  # allows options among the overrides
    try:
        return _run(args)
    except FailedElsewhere:
        return 2
    except (OSError, ValueError) as error:
        if isinstance(error, RecipeError) and os.environ.get("LOCAL_RANK", "0") != "0":
            return 2  # every process finds the same fault in a recipe, so one per machine reports it
        return report(error)
    except KeyboardInterrupt:  # while training, the run's own handler saves first
        print("stopped; checkpoints that were saved are kept", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    recipe, evaluation = _recipe(args), None
    # imported here because torch takes ten seconds, which help and errors in the recipe should not wait for
    if recipe.evaluate.every:
        with long_step("the recipe is valid; starting torch and what evaluates the student"):
            from training.evaluate.scheduled.check import check_evaluation
            from training.evaluate.scheduled.evaluation import ScheduledEvaluation as evaluation
        check_evaluation(recipe)
    if args.dry_run:
        with long_step("the recipe is valid; starting torch and other libraries"):
            from training.trainer.estimate.dry_run import dry_run

        dry_run(recipe, cpu=args.cpu, resume=args.resume is not None, accept_changes=args.accept_changes)
        return 0
    with long_step("the recipe is valid; starting torch and other libraries"):
        from training.trainer.launch import start

    resume = args.resume is not None
    return start(recipe, cpu=args.cpu, resume=resume, accept_changes=args.accept_changes, evaluation=evaluation)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The given recipe, or the saved one of the run to resume."""
    names, overrides = split_words([*args.recipe, *args.overrides])
    if not args.resume:
        return load_recipe(names or DEFAULT_RECIPE, overrides, check_files=True)
    if names:
        raise RecipeError(
            f"got --recipe {' '.join(names)} and --resume {args.resume}, which has its own recipe; give only one. "
            "With --recipe, use --resume without a folder: it resumes in the recipe's output.folder"
        )
    saved = Path(args.resume) / "recipe.toml"
    if not saved.is_file():
        raise RecipeError(f"--resume {args.resume}: there is no run (no recipe.toml)")
    return load_recipe(str(saved), [*overrides, f"output.folder={args.resume}"], check_files=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.pgsb", description=__doc__)
    parser.add_argument(
        "--recipe",
        nargs="+",
        default=[],
        metavar="NAME",
        help="recipes, later ones over earlier ones: .toml files, or names: "
        f"{', '.join(recipe_names())} (default: {DEFAULT_RECIPE})",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="resume the run in FOLDER with its saved recipe; without FOLDER: resume in the output.folder of the "
        "given recipe and overrides, or start there if nothing is saved yet",
    )
    parser.add_argument("--accept-changes", action="store_true", help="resume although the recipe has changed")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print the settings and an estimate, and stop"
    )
    parser.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example guidance.kappa_max=3")
    return parser


if __name__ == "__main__":
    sys.exit(main())
