"""`python -m experiments.avatars.evaluate`: measure a teacher or a student of the avatars' world.

Prints as JSON how well it follows captions, how many pictures are valid, how varied they are and, for students, what
NASA removes. All seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from experiments.avatars import measure
from experiments.avatars.sheet import write_sheet
from experiments.avatars.world import AVATARS
from experiments.negatives.measure import all_pairs
from experiments.negatives.settings import Protocol
from experiments.removal import Generate, mean_removal, removal_table
from experiments.sampling import ManySteps, one_step
from snoopi_core.formats.atomic import write_atomically
from training.models.backbone import Backbone, fingerprint
from training.models.loading import load_backbone
from training.prompts.avatars.rules import read

CAPTION_SEED, NOISE_SEED = 10_000, 20_000


def removal_means(model: Backbone, alphas: list[float], count: int) -> dict[str, dict[str, float]]:
    """Effect of NASA on the fixed pairs and the student's modal pairs: means by alpha; 0: no negative."""
    pairs = all_pairs(AVATARS, one_step(model), Protocol())
    means = {}
    for alpha in (0.0, *alphas):
        rows = removal_table(AVATARS, one_step(model, scale=alpha), pairs, steer=alpha > 0, count=count)
        means[f"{alpha:g}"] = asdict(mean_removal(rows))
    return means


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars.evaluate", description=__doc__)
    parser.add_argument("model", help="diffusers folder or safetensors file of this project")
    roles = ("teacher", "student")
    parser.add_argument("--as", dest="role", choices=roles, default="student", help="20 DDIM steps at cfg 3, or 1 step")
    parser.add_argument("--count", type=int, default=200, help="captions of each kind")
    parser.add_argument("--variety", type=int, default=50, help="images for each prompt that leaves much open; 0: none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.3, 0.5, 0.8, 1.0], help="of NASA; may be empty")
    parser.add_argument("--pair-images", type=int, default=100, help="for each pair of prompt and negative")
    parser.add_argument(
        "--sheet",
        type=Path,
        help="write the pictures of partial captions here: .png, or .html with what was read in each",
    )
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    model = load_backbone(arguments.model)
    generate: Generate = one_step(model) if arguments.role == "student" else ManySteps(model=model)
    result: dict[str, object] = {
        "model": arguments.model,
        "fingerprint": fingerprint(model.network),
        "reader": AVATARS.reader,
    }
    for kind in measure.KINDS:
        captions, stated = measure.caption_set(arguments.count, CAPTION_SEED, kind)
        images = generate(captions, list(range(NOISE_SEED, NOISE_SEED + arguments.count)))
        if arguments.sheet and kind == "partial":
            write_sheet(arguments.sheet, arguments.model, images, captions, AVATARS.read(images), stated)
        result[kind] = asdict(measure.accuracy(read(images), stated))
    if arguments.variety:
        result["prompt_entropy"] = measure.prompt_entropy(generate, count=arguments.variety, seed=NOISE_SEED)
        result["valid_entropy"] = measure.valid_entropy(generate, count=arguments.variety, seed=NOISE_SEED)
    if arguments.role == "student" and arguments.alphas:
        result["removal"] = removal_means(model, arguments.alphas, arguments.pair_images)
    text = json.dumps({**result, "role": arguments.role}, indent=2)
    print(text)
    if arguments.json:
        write_atomically(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
