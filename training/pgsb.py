"""Distil a multi-step teacher into a one-step student, image-free (PG-SB, arXiv 2412.02687, Section 3)."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from training.config import Recipe, RecipeError, load_recipe, recipe_names, split_words

log = logging.getLogger("training.pgsb")


def main(arguments: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    for n, word in enumerate(words):
        if word == "--resume" and split_words(words[n + 1 : n + 2])[1]:
            words[n] = "--resume="  # an override comes next, and no folder
    args = _parser().parse_intermixed_args(words)  # options may stand among the overrides
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _run(args)
    except (OSError, ValueError) as error:
        # every process finds the same fault in a recipe: one of each machine tells
        if not isinstance(error, RecipeError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    recipe = _recipe(args)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        log.info("the recipe is in order; starting torch ...")
    # torch and what builds on it take ten seconds to import: help, and what is wrong with a recipe, come before
    if args.dry_run:
        from training.trainer.estimate.dry_run import dry_run

        dry_run(recipe, cpu=args.cpu, resume=args.resume is not None, accept_changes=args.accept_changes)
        return 0
    from training.trainer.launch import start

    return start(recipe, cpu=args.cpu, resume=args.resume is not None, accept_changes=args.accept_changes)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that was asked for, or the one that the run to be resumed has saved."""
    names, overrides = split_words([*args.recipe, *args.overrides])
    if not args.resume:
        return load_recipe(names or "shapes", overrides, check_files=True)
    if names:
        raise RecipeError(
            f"got --recipe {' '.join(names)} and --resume {args.resume}, which has its own; leave one of them out: "
            "--resume alone goes on in the recipe's output.folder"
        )
    saved = Path(args.resume) / "recipe.toml"
    if not saved.is_file():
        raise RecipeError(f"--resume {args.resume}: no run there, its recipe.toml is missing")
    return load_recipe(str(saved), [*overrides, f"output.folder={json.dumps(args.resume)}"], check_files=True)


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
