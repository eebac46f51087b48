"""`python -m experiments.shapes.evaluate`: measure a teacher or a student of the shapes world.

Prints as JSON how well it follows captions, how varied its images are (entropies in bits) and, for students, what NASA
removes. All seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from experiments.removal import Generate, mean_removal, modal_pairs, removal_table
from experiments.sampling import ManySteps, one_step
from experiments.shapes import measure
from experiments.shapes.world import SHAPES
from snoopi_core.formats.atomic import write_atomically
from training.models.backbone import Backbone, fingerprint
from training.models.loading import load_backbone

CAPTION_SEED, NOISE_SEED = 10_000, 20_000
OPEN: tuple[dict[str, str], ...] = (
    {},
    {"colour": "red"},
    {"shape": "ring"},
    {"position": "left"},
    {"background": "white"},
)


def removal_means(model: Backbone, alphas: list[float], count: int) -> dict[str, dict[str, float]]:
    """Effect of NASA on the student's own modal pairs: mean over the pairs, by alpha; 0 is without the negative."""
    pairs = modal_pairs(SHAPES, one_step(model))
    means = {}
    for alpha in (0.0, *alphas):
        rows = removal_table(SHAPES, one_step(model, scale=alpha), pairs, steer=alpha > 0, count=count)
        means[f"{alpha:g}"] = asdict(mean_removal(rows))
    return means


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shapes.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="diffusers folder or safetensors file of this project")
    roles = ("teacher", "student")
    parser.add_argument("--as", dest="role", choices=roles, default="student", help="20 DDIM steps at cfg 3, or 1 step")
    parser.add_argument("--count", type=int, default=400, help="captions of each kind")
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.3, 0.5, 0.8, 1.0], help="of NASA; may be empty")
    parser.add_argument("--pair-images", type=int, default=100, help="for each pair of prompt and negative")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    model = load_backbone(arguments.model)
    student = arguments.role == "student"
    generate: Generate = one_step(model) if student else ManySteps(model=model)
    accuracy = {}
    for kind in ("full", "partial"):
        captions, stated = measure.caption_set(arguments.count, CAPTION_SEED, kind)
        images = generate(captions, list(range(NOISE_SEED, NOISE_SEED + arguments.count)))
        accuracy[kind] = asdict(measure.accuracy(images, stated))
    result = {
        "model": arguments.model,
        "fingerprint": fingerprint(model.network),
        "role": arguments.role,
        "accuracy": accuracy,
        "prompt_entropy": measure.prompt_entropy(generate, list(OPEN), count=50, seed=NOISE_SEED),
    }
    if student and arguments.alphas:
        result["removal"] = removal_means(model, arguments.alphas, arguments.pair_images)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        write_atomically(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
