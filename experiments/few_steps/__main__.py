"""`python -m experiments.few_steps`: students of one, two and four steps in the small world.

Trains them from the same teacher with `python -m training.pgsb`, measures each with all its steps, and writes tables of
quality, variety and removal, and a picture. It may be stopped at any moment: what --out has is not repeated, and a run
is resumed. A run that fails is reported; the others continue.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from experiments.few_steps.measure import measure_run, measure_teacher
from experiments.few_steps.settings import STUDENTS, Protocol, Study
from experiments.few_steps.tables import difference_table, draw_picture, quality_table, removal_table
from experiments.json_file import write_json
from experiments.run_trainer import run_trainer
from experiments.tables import fill_page
from training.config import RecipeError, load_recipe

_MEASURING = Lock()  # loading a model patches torch's modules for a moment, so one run is measured at a time


def train_and_measure(study: Study, steps: int, seed: int, iterations: int) -> dict[str, Any]:
    """The figures of one run; only "problem" if it failed."""
    folder = study.folder(steps, seed)
    about = {"steps": steps, "seed": seed, "iterations": iterations, "folder": str(folder)}
    problem = run_trainer(
        folder,
        recipe="shapes",
        overrides=study.varied(steps),
        settings=study.settings(steps, seed, iterations),
        iterations=iterations,
        threads=study.threads,
    )
    measured: dict[str, Any] = {}
    if not problem:
        try:
            with _MEASURING:
                measured = measure_run(folder, iterations, study.protocol)
        except (OSError, ValueError) as error:
            problem = str(error)
    print(f"{folder.name}: {problem or 'done'}", flush=True)
    return about | measured | {"problem": problem}


def main(arguments: list[str] | None = None) -> int:
    """Command line. Returns 1 when a run failed, 2 when nothing could be started."""
    args = _parser().parse_intermixed_args(arguments)
    study = Study(
        out=args.out.resolve(),
        protocol=Protocol(**{field.name: getattr(args, field.name) for field in fields(Protocol)}),
        overrides=tuple(args.overrides),
        **{name: getattr(args, name) for name in ("iterations", "equal", "save_every", "threads")},
    )
    torch.set_num_threads(study.threads)
    try:
        recipe = load_recipe("shapes", list(study.varied(1)))
        operations = {steps: study.operations(steps) for steps in {1, *args.steps}}
        teacher = measure_teacher(recipe.teacher.path, study.out / "teacher.json", study.protocol)
    except (RecipeError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    jobs = [(steps, seed, study.length(operations, steps)) for seed in args.seeds for steps in sorted(set(args.steps))]
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            runs = list(pool.map(lambda job: train_and_measure(study, *job), jobs))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            return 130
    good = [run for run in runs if not run["problem"]]
    results = {
        "equal": study.equal,
        "overrides": list(study.overrides),
        "protocol": asdict(study.protocol),
        "operations": {str(steps): count for steps, count in operations.items()},
        "teacher": teacher,
        "runs": [{key: value for key, value in run.items() if key not in ("folder", "protocol")} for run in runs],
    }
    write_json(args.json, results)
    if good:
        tables = {
            "quality": quality_table(teacher, good, operations),
            "difference": difference_table(teacher, good),
            "removal": removal_table(good),
        }
        fill_page(args.page, tables)
        draw_picture(recipe.teacher.path, good, args.page.parent / "images" / "few-steps.png")
        print(f"wrote {args.json}, {args.page}, {args.page.parent / 'images' / 'few-steps.png'}")
    return 0 if len(good) == len(runs) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.few_steps", description=__doc__)
    parser.add_argument("--steps", nargs="+", type=int, choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=700, help="of the one-step student (default: %(default)s)")
    parser.add_argument(
        "--equal",
        choices=("updates", "operations"),
        default="updates",
        help="the budget that all students share: as many updates, or as many operations (default: %(default)s)",
    )
    parser.add_argument("--save-every", type=int, default=100, help="iterations (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/few_steps"), help="the runs (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("docs/data/few_steps.json"), help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=Path("docs/FEW_STEPS.md"), help="its picture goes into images/")
    for field in fields(Protocol):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run, as training.pgsb takes them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
