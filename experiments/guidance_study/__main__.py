"""`python -m experiments.guidance_study`: how the guidance of the two teachers matters in the small world.

Trains every cell once per seed with `python -m training.pgsb`, measures every checkpoint, and writes the tables of
docs/STUDY.md. Runs that --out or --json already has are not repeated, and interrupted ones are resumed. A run that
fails is reported; the others continue. With more --iterations the same runs are continued.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from experiments.guidance_study.measure import measure_run, measure_teacher
from experiments.guidance_study.settings import CELLS, Protocol, Study
from experiments.guidance_study.tables import write
from experiments.json_file import as_json, read_json, write_json
from experiments.run_trainer import run_trainer
from training.config import Recipe, RecipeError, find_file, load_recipe

_MEASURING = Lock()  # loading a model patches torch's modules for a moment, so one run is measured at a time


def train(study: Study, cell: str, seed: int) -> str:
    """Train, or continue to train, one cell with one seed. Returns "", or what went wrong; see `run_trainer`."""
    overrides = (*CELLS[cell].overrides, *study.overrides)
    return run_trainer(
        study.folder(cell, seed),
        recipe=study.recipe,
        overrides=overrides,
        settings=study.settings(cell, seed),
        iterations=study.iterations,
        threads=study.threads,
    )


def train_and_measure(study: Study, cell: str, seed: int) -> dict[str, Any]:
    """One entry of "runs" in the results; steps that are already done are skipped."""
    folder = study.folder(cell, seed)
    problem, measured = train(study, cell, seed), {}
    if not problem:
        try:
            with _MEASURING:
                measured = measure_run(folder, study.iterations, study.every, study.protocol)
        except (OSError, ValueError) as error:
            problem = str(error)
    print(f"{folder.name}: {problem or 'done'}", flush=True)
    return {"cell": cell, "seed": seed, "problem": problem, **measured}


def done_before(before: dict[str, Any], study: Study) -> dict[tuple[str, int], dict[str, Any]]:
    """The runs in --json that are still valid, by cell and seed; also those that were not asked for this time."""
    points = {str(step) for step in [*range(study.every, study.iterations, study.every), study.iterations]}
    cells = before.get("cells", {})
    same = [cell for cell in CELLS if cells.get(cell, {}).get("overrides") == list(CELLS[cell].overrides)]
    return {
        (run["cell"], run["seed"]): run
        for run in before.get("runs", [])
        if run["cell"] in same and not run["problem"] and run["curve"].keys() == points
    }


def digest(recipe: Recipe) -> str:
    """SHA-256 of what a run depends on besides cell, seed and length: the recipe and the teacher's weights."""
    content = recipe.model_dump(mode="json", exclude={"seed", "output", "guidance"})
    content["loop"] = {key: value for key, value in content["loop"].items() if key not in ("iterations", "threads")}
    teacher = find_file(recipe.teacher.path)
    weights = hashlib.sha256(teacher.read_bytes()).hexdigest() if teacher.is_file() else ""
    return hashlib.sha256(json.dumps([content, weights], sort_keys=True).encode()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Command line. Returns 1 when a run failed, 2 when nothing could be started."""
    args = _parser().parse_intermixed_args(arguments)
    protocol = Protocol(**{field.name: getattr(args, field.name) for field in fields(Protocol)})
    study = Study(
        **{name: getattr(args, name) for name in ("recipe", "iterations", "every", "threads")},
        **{name: tuple(getattr(args, name)) for name in ("cells", "seeds", "overrides")},
        out=args.out.resolve(),
        protocol=protocol,
    )
    try:
        load_recipe(study.recipe, study.settings(study.cells[0], study.seeds[0]))
        recipe = load_recipe(study.recipe, study.overrides)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    about = {
        "protocol": asdict(protocol),
        "iterations": study.iterations,
        "recipe": study.recipe,
        "overrides": list(study.overrides),
        "setting": digest(recipe),
    }
    before = read_json(args.json)
    if any(before.get(key) != value for key, value in about.items()):
        before = {}
    known = done_before(before, study)
    jobs = [(cell, seed) for seed in study.seeds for cell in study.cells]
    torch.set_num_threads(study.threads)
    if not (ends := {key: before[key] for key in ("teacher", "start") if key in before}):
        print("teacher: measuring", flush=True)
        try:
            ends = measure_teacher(recipe.teacher.path, protocol)
        except (OSError, ValueError) as error:
            print(f"error: the teacher could not be measured: {error}", file=sys.stderr)
            return 2
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            runs = list(pool.map(lambda job: known.get(job) or train_and_measure(study, *job), jobs))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            return 130
    kept = [run for job, run in known.items() if job not in jobs]
    shown = {*study.cells, *(run["cell"] for run in kept)}
    cells = {cell: as_json(asdict(CELLS[cell])) for cell in CELLS if cell in shown}
    results = about | {"cells": cells} | ends | {"runs": sorted([*kept, *runs], key=lambda run: run["seed"])}
    write_json(args.json, results)
    write(results, args.page)
    print(f"wrote {args.json}, {args.page}")
    return 1 if any(run["problem"] for run in runs) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.guidance_study", description=__doc__)
    parser.add_argument("--recipe", default="shapes")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=200, help="of every run (default: %(default)s)")
    parser.add_argument("--every", type=int, default=25, help="iterations between measurements (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="the runs (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("docs/study.json"), help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=Path("docs/STUDY.md"), help="its charts go into images/ beside it")
    for field in fields(Protocol):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run, as training.pgsb takes them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
