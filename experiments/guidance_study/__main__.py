"""`python -m experiments.guidance_study`: how the guidance of the two teachers matters in a small world.

Trains every cell once per seed with `python -m training.pgsb`, measures every checkpoint, and writes the tables of
docs/STUDY.md. Runs that --out or --json already has are not repeated, and interrupted ones are resumed. A run that
fails is reported; the others continue. With more --iterations the same runs are continued, unless the recipe's
learning rates depend on the length (loop.cooldown): then they are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from experiments.guidance_study.measure import measure_run, measure_teacher
from experiments.guidance_study.settings import CELLS, OF_GUIDANCE, Protocol, Study
from experiments.guidance_study.tables import write
from experiments.guidance_study.worlds import MEASURES, sha256
from experiments.json_file import as_json, read_json, write_json
from experiments.study import add_study_arguments, from_arguments, run_all
from training.config import Recipe, RecipeError, find_file, load_recipe


def train_and_measure(study: Study, cell: str, seed: int) -> dict[str, Any]:
    """One entry of "runs" in the results; steps that are already done are skipped."""
    folder = study.folder(cell, seed)
    measure = partial(measure_run, folder, study.world, study.iterations, study.save_every, study.protocol)
    measured = study.train_and_measure(folder, seed, study.iterations, study.varied(cell), measure)
    return {"cell": cell, "seed": seed, **measured}


def done_before(before: dict[str, Any], study: Study) -> dict[tuple[str, int], dict[str, Any]]:
    """The runs in --json that are still valid, by cell and seed; also those that were not asked for this time."""
    points = {str(step) for step in [*range(study.save_every, study.iterations, study.save_every), study.iterations]}
    cells = before.get("cells", {})
    same = [cell for cell in CELLS if cells.get(cell, {}).get("overrides") == list(CELLS[cell].overrides)]
    return {
        (run["cell"], run["seed"]): run
        for run in before.get("runs", [])
        if run["cell"] in same and not run["problem"] and run["curve"].keys() == points
    }


def digest(recipe: Recipe) -> str:
    """SHA-256 of what a run depends on besides cell, seed and length: the recipe and the teacher's weights."""
    content = recipe.to_hash("seed", "output", "guidance")
    content["loop"] = {key: value for key, value in content["loop"].items() if key not in ("iterations", "threads")}
    teacher = find_file(recipe.teacher.path)
    weights = sha256(teacher) if teacher.is_file() else ""
    return hashlib.sha256(json.dumps([content, weights], sort_keys=True).encode()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Command line. Returns 1 when a run failed, 2 when nothing could be started."""
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    if args.world != parser.get_default("world"):
        same = [f"--{name}" for name in ("out", "json", "page") if getattr(args, name) == parser.get_default(name)]
        if same:
            parser.error(f"--world {args.world} needs its own {', '.join(same)}: the defaults are the shapes world's")
    measures = MEASURES[args.world]
    if not measures.pairs and args.pairs != Protocol.pairs:
        parser.error(
            f"--pairs is the number of modal pairs; the world {args.world} has {len(measures.world.fixed)} fixed"
        )
    protocol = from_arguments(Protocol, args)
    study = from_arguments(Study, args, out=args.out.resolve(), protocol=protocol, save_every=args.every)
    cell, seed = study.cells[0], study.seeds[0]
    try:
        load_recipe(study.recipe, study.settings(study.folder(cell, seed), seed, study.iterations, study.varied(cell)))
        recipe = load_recipe(study.recipe, study.overrides)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    source = recipe.prompts.source
    if source in MEASURES and source != args.world:
        given = f"--world is {args.world}, but the prompts of --recipe {study.recipe} are of {source}"
        print(f"error: {given}; give a recipe of {args.world}, or --world {source}", file=sys.stderr)
        return 2
    about = {
        "protocol": asdict(protocol),
        "iterations": study.iterations,
        "world": study.world,
        "recipe": study.recipe,
        "overrides": study.overrides,
        "setting": digest(recipe),
        **measures.about,
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
            ends = measure_teacher(recipe.teacher.path, study.world, protocol)
        except (OSError, ValueError) as error:
            print(f"error: the teacher could not be measured: {error}", file=sys.stderr)
            return 2
    runs = run_all(lambda *job: known.get(job) or train_and_measure(study, *job), jobs, args.jobs)
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
    parser.add_argument("--world", choices=MEASURES, default="shapes", help="whose pictures they are")
    parser.add_argument("--recipe", default="shapes", help="of that world (default: %(default)s)")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(OF_GUIDANCE), help="default: all of guidance")
    parser.add_argument("--iterations", type=int, default=200, help="of every run (default: %(default)s)")
    parser.add_argument("--every", type=int, default=25, help="iterations between measurements (default: %(default)s)")
    add_study_arguments(parser, Protocol, out="runs/study", json="docs/study.json", page="docs/STUDY.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
