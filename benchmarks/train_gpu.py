"""Measures a training iteration on this GPU, in less than ten minutes; writes Markdown to --out.

    python benchmarks/train_gpu.py

Stable Diffusion 1.5 at full size with random weights, bf16, 512 px: our step and the plain reference step, eager
and compiled. Then the shipped recipes with all their features, such as the CLIP loss through a tiny decoder, each in a
separate process: the allocator's peak memory, and images per second over whole iterations.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from random_model import SHAPES, write_clip, write_model
from step_worker import Worker, scratch_recipe
from train_step import measure, report, title

from training.config import load_recipe

# recipe, changes to its loop, memory limit in bytes
FITS: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("sd15", {"batch_size": 16, "micro_batch": 16}, 40e9),
    ("sd15", {}, 80e9),
    ("sd15_24gb", {}, 24e9),
    ("sd15_12gb", {}, 12e9),
)


def comparison(arguments: argparse.Namespace, folder: Path, loop: dict[str, Any]) -> str:
    """The section that compares ours with the reference; raises AssertionError if their figures differ."""
    settings = {"precision": "bf16", "latent_size": SHAPES[arguments.model].side, "batch_size": arguments.batch} | loop
    recipe = scratch_recipe(folder, {"loop": settings, "clip": {"weight": 0}})
    cpu = arguments.device == "cpu"
    results = measure(recipe, cpu=cpu, threads=1, rounds=arguments.rounds, apart=arguments.apart)
    return report(title(SHAPES[arguments.model], recipe, results), results, recipe.loop.batch_size)


def fit(arguments: argparse.Namespace, folder: Path, name: str, loop: dict[str, Any], room: float) -> str:
    """A row of the table: a recipe's peak memory, and its images per second over whole iterations."""
    loop = {"latent_size": SHAPES[arguments.model].side, "compile": False} | loop
    if arguments.device == "cpu":  # only to try the command
        loop |= {"batch_size": 2, "micro_batch": 1, "optimizer": "adamw"}
    clip = {"pretrained": str(folder / "clip.safetensors"), "decoder": str(folder / "taesd")}
    recipe = scratch_recipe(folder, {"loop": loop, "clip": clip}, load_recipe(name))
    label = f"{name}, batch {recipe.loop.batch_size}, micro-batch {recipe.loop.micro_batch}"
    if recipe.loop.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        return f"| {label} | needs bitsandbytes | | |"
    try:
        with Worker("ours", recipe, cpu=arguments.device == "cpu") as worker:
            worker("step")
            seconds = min(worker("step") for _ in range(2))
            peak = worker("peak")
    except RuntimeError as error:
        return f"| {label} | {error} | {room / 1e9:.0f} GB | |"
    verdict = "fits" if peak <= room else "does not fit"
    return (
        f"| {label} | {peak / 1e9:.2f} GB | {room / 1e9:.0f} GB: {verdict} | {recipe.loop.batch_size / seconds:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="sd15")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the command out")
    parser.add_argument("--batch", type=int, default=4, help="of the comparison")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--apart", action="store_true", help="for a GPU of less than 80 GB: one variant after the other"
    )
    parser.add_argument(
        "--no-compile", action="store_true", help="leave the compiled comparison out, which takes longest"
    )
    parser.add_argument("--out", type=Path, default=Path("out/train-gpu.md"))
    arguments = parser.parse_args()
    sections = []

    def add(section: str) -> None:
        print(section, flush=True)
        sections.append(section)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("\n".join(sections) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="snoopi-bench-") as name:
        folder = Path(name)
        write_model(SHAPES[arguments.model], folder)
        write_clip(folder)
        add(comparison(arguments, folder, {}))
        add("\n| recipe | peak memory | room | images / s |\n|---|---|---|---|")
        for recipe, loop, room in FITS:
            add(fit(arguments, folder, recipe, loop, room))
        if not arguments.no_compile:
            add("\n" + comparison(arguments, folder, {"compile": True}))


if __name__ == "__main__":
    main()
