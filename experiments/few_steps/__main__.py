"""`python -m experiments.few_steps`: students of one, two and four steps in the avatars' world.

Trains them from the same teacher with `python -m training.pgsb`, measures each with all its steps, and writes tables of
quality, variety and removal, and a picture. It may be stopped at any moment: what --out has is not repeated, and a run
is resumed. A run that fails is reported; the others continue.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from experiments.few_steps.measure import measure_run, measure_teacher
from experiments.few_steps.settings import STUDENTS, Protocol, Study
from experiments.few_steps.tables import all_tables, draw_picture
from experiments.json_file import write_json
from experiments.study import add_study_arguments, from_arguments, run_all
from experiments.tables import fill_page
from training.config import RecipeError, load_recipe


def train_and_measure(study: Study, steps: int, seed: int, iterations: int) -> dict[str, Any]:
    """The figures of one run; only "problem" if it failed."""
    folder = study.folder(steps, seed)
    about = {"steps": steps, "seed": seed, "iterations": iterations, "folder": str(folder)}
    measure = partial(measure_run, folder, steps, iterations, study.protocol)
    return about | study.train_and_measure(folder, seed, iterations, study.varied(steps), measure)


def main(arguments: list[str] | None = None) -> int:
    """Command line. Returns 1 when a run failed, 2 when nothing could be started."""
    args = _parser().parse_intermixed_args(arguments)
    protocol = from_arguments(Protocol, args)
    study = from_arguments(Study, args, out=args.out.resolve(), protocol=protocol)
    torch.set_num_threads(study.threads)
    try:
        recipe = load_recipe(study.recipe, study.varied(1))
        operations = {steps: study.operations(steps) for steps in {1, *args.steps}}
        teacher = measure_teacher(recipe.teacher.path, study.out / "teacher.json", study.protocol)
    except (RecipeError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    jobs = [(steps, seed, study.length(operations, steps)) for seed in args.seeds for steps in sorted(set(args.steps))]
    runs = run_all(partial(train_and_measure, study), jobs, args.jobs)
    good = [run for run in runs if not run["problem"]]
    results = {
        "equal": study.equal,
        "overrides": study.overrides,
        "protocol": asdict(study.protocol),
        "operations": {str(steps): count for steps, count in operations.items()},
        "teacher": teacher,
        "runs": [{key: value for key, value in run.items() if key not in ("folder", "protocol")} for run in runs],
    }
    write_json(args.json, results)
    if good:
        fill_page(args.page, all_tables(results))
        draw_picture(recipe.teacher.path, good, args.page.parent / "images" / "few-steps.png")
        print(f"wrote {args.json}, {args.page}, {args.page.parent / 'images' / 'few-steps.png'}")
    return 0 if len(good) == len(runs) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.few_steps", description=__doc__)
    parser.add_argument("--steps", nargs="+", type=int, choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--iterations", type=int, default=300, help="of the one-step student (default: %(default)s)")
    parser.add_argument(
        "--equal",
        choices=("updates", "operations"),
        default="updates",
        help="the budget that all students share: as many updates, or as many operations (default: %(default)s)",
    )
    parser.add_argument("--save-every", type=int, default=100, help="iterations (default: %(default)s)")
    add_study_arguments(
        parser, Protocol, out="runs/few_steps", json="docs/data/few_steps.json", page="docs/FEW_STEPS.md"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
