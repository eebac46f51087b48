"""Compares our PG-SB iteration with a plain reference iteration, on the same model, device and batch, in turn.

    python benchmarks/train_step.py --model sd15-small --batch 2
    python benchmarks/train_step.py --model sd15 --device cuda --precision bf16 --batch 8

Prints a Markdown table: seconds, images per second, peak memory, FLOPs and the share of the device's measured matmul
rate, then the time by phase. Weights are random (benchmarks/random_model.py). Both variants start from the same weights
and get the same prompts and noise. If their first images, losses and gradients differ, nothing is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import numpy as np  # noqa: E402
from clock import PHASES  # noqa: E402
from random_model import SHAPES, Shape, write_model  # noqa: E402
from step_worker import VARIANTS, Worker, scratch_recipe  # noqa: E402

from training.config import Recipe, load_recipe  # noqa: E402

# largest relative differences between the variants that rounding can cause
TOLERANCES = {"no": 1e-4, "bf16": 5e-2}


def check_agreement(ours: dict[str, Any], reference: dict[str, Any], precision: str) -> float:
    """The largest relative difference in x0, losses and gradient norms of the first iteration.

    Raises:
        AssertionError: a difference is larger than rounding can cause.
    """
    differences = {
        name: float(np.linalg.norm(ours[name] - value) / np.linalg.norm(value)) for name, value in reference.items()
    }
    worst = max(differences, key=differences.__getitem__)
    if not differences[worst] <= TOLERANCES[precision]:
        raise AssertionError(f"the variants differ: {differences}; expected at most {TOLERANCES[precision]}")
    return differences[worst]


def measure(recipe: Recipe, *, cpu: bool, threads: int, rounds: int, apart: bool) -> dict[str, dict[str, Any]]:
    """The measurements by variant. `apart`: only one variant is on the device at a time, to save memory."""
    results: dict[str, dict[str, Any]] = {}

    def start(variant: str) -> Worker:
        return Worker(variant, recipe, cpu=cpu, threads=threads)

    def begin(variant: str, worker: Worker) -> None:
        results[variant] = {"first": worker("first"), "seconds": []}
        worker("step")

    def finish(variant: str, worker: Worker) -> None:
        results[variant] |= {
            "peak": worker("peak"),
            "phases": worker("phases", 3),
            "flops": worker("flops"),
            "rate": worker("matmul_rate"),
            "device": worker("device_name"),
        }

    if apart:
        for variant in VARIANTS:
            with start(variant) as worker:
                begin(variant, worker)
                results[variant]["seconds"] = [worker("step") for _ in range(rounds)]
                finish(variant, worker)
    else:
        with contextlib.ExitStack() as stack:
            workers = {variant: stack.enter_context(start(variant)) for variant in VARIANTS}
            for variant, worker in workers.items():
                begin(variant, worker)
            check_agreement(results["ours"]["first"], results["reference"]["first"], recipe.loop.precision)
            for number in range(rounds):
                for variant in list(workers)[:: 1 if number % 2 else -1]:
                    results[variant]["seconds"].append(workers[variant]("step"))
            for variant, worker in workers.items():
                finish(variant, worker)
    difference = check_agreement(results["ours"]["first"], results["reference"]["first"], recipe.loop.precision)
    results["ours"]["difference"] = difference
    return results


def report(title: str, results: dict[str, dict[str, Any]], batch: int) -> str:
    """The results as a Markdown section."""
    base, rounds = results["reference"], len(results["ours"]["seconds"])
    lines = [
        f"### {title}, {rounds} rounds",
        "",
        "| step | s (median) | reference / it (median; least to most) | images / s | peak memory, GB (ratio) "
        "| TFLOPs | share of matmul rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant, result in results.items():
        seconds = statistics.median(result["seconds"])
        ratios = [theirs / mine for theirs, mine in zip(base["seconds"], result["seconds"], strict=True)]
        lines.append(
            f"| {variant} | {seconds:.3f} | {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) "
            f"| {batch / seconds:.3f} | {result['peak'] / 1e9:.2f} ({result['peak'] / base['peak']:.3f}) "
            f"| {result['flops'] / 1e12:.3f} | {result['flops'] / seconds / result['rate']:.0%} |"
        )
    lines += ["", "| phase, s | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for phase in (*PHASES, "the rest"):
        lines.append(f"| {phase} | " + " | ".join(f"{r['phases'][phase]:.3f}" for r in results.values()) + " |")
    ours = results["ours"]
    lines += [
        "",
        f"The first iteration's x0, losses and gradient norms differ by at most {ours['difference']:.1e}, relative; "
        f"a matrix product runs at {ours['rate'] / 1e12:.3g} TFLOP/s.",
    ]
    return "\n".join(lines)


def title(shape: Shape, recipe: Recipe, results: dict[str, dict[str, Any]], threads: int = 1) -> str:
    """Model, device and settings in a line."""
    loop, device = recipe.loop, results["ours"]["device"]
    settings = [
        f"CPU, {threads} thread(s)" if device == "CPU" else device,
        "bf16" if loop.precision == "bf16" else "fp32",
        f"latent {loop.latent_size}x{loop.latent_size}, batch {loop.batch_size}",
        *(["gradient checkpointing"] if loop.gradient_checkpointing else []),
        *(["ours compiled"] if loop.compile else []),
        *([f"ours with {loop.optimizer}"] if loop.optimizer != "adamw" else []),
    ]
    return f"{shape.name}: {', '.join(settings)}"


def recipe_of(arguments: argparse.Namespace, folder: Path) -> Recipe:
    """The recipe to measure: the defaults or a shipped recipe, with the changes of the command line."""
    base = load_recipe(arguments.recipe) if arguments.recipe else None
    loop: dict[str, Any] = {
        "precision": arguments.precision,
        "latent_size": arguments.latent or SHAPES[arguments.model].side,
        "compile": arguments.compile,
        "optimizer": arguments.optimizer,
        "gradient_checkpointing": arguments.checkpointing,
    }
    loop = {name: value for name, value in loop.items() if value is not None}
    # a plain loop does not split a batch, so the compared batch is a micro-batch
    batch = arguments.batch or (base and base.loop.micro_batch) or (base and base.loop.batch_size) or 2
    loop |= {"batch_size": batch, "micro_batch": 0}
    return scratch_recipe(folder, {"loop": loop, "clip": {"weight": 0}}, base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="sd15-small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--recipe", help="a shipped recipe to take settings from (its micro-batch is the batch)")
    parser.add_argument("--precision", choices=TOLERANCES)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--latent", type=int, help="side of the latent; default: the model's")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="ours alone")
    parser.add_argument("--optimizer", choices=("adamw", "adamw8bit"), help="ours alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--apart", action="store_true", help="one variant after the other: both do not fit at once")
    arguments = parser.parse_args()
    cpu = arguments.device == "cpu"
    if arguments.precision is None and not arguments.recipe:
        arguments.precision = "no" if cpu else "bf16"
    with tempfile.TemporaryDirectory(prefix="snoopi-bench-") as folder:
        write_model(SHAPES[arguments.model], Path(folder))
        recipe = recipe_of(arguments, Path(folder))
        results = measure(recipe, cpu=cpu, threads=arguments.threads, rounds=arguments.rounds, apart=arguments.apart)
    heading = title(SHAPES[arguments.model], recipe, results, arguments.threads)
    print(report(heading, results, recipe.loop.batch_size))


if __name__ == "__main__":
    main()
