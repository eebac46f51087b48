"""`python -m experiments.shapes.evaluate`: measure a teacher or a student of the shapes world.

Prints how well it follows captions, how varied its images are, and (students) what NASA removes. All seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from math import log2
from pathlib import Path

import torch

from experiments.shapes import measure
from experiments.shapes.measure import Accuracy, Generate
from experiments.shapes.sampling import ManySteps, OneStep
from snoopi_core.formats.atomic import write_atomically
from training.models.backbone import Backbone, fingerprint
from training.models.loading import load_backbone
from training.prompts.shapes.scene import ATTRIBUTES

CAPTION_SEED, NOISE_SEED = 10_000, 20_000
OPEN: tuple[dict[str, str], ...] = (
    {},
    {"colour": "red"},
    {"shape": "ring"},
    {"position": "left"},
    {"background": "white"},
)


def accuracy_rows(generate: Generate, count: int) -> dict[str, Accuracy]:
    """Accuracy on full and on partial captions."""
    rows = {}
    for kind in ("full", "partial"):
        captions, stated = measure.caption_set(count, CAPTION_SEED, kind)
        rows[kind] = measure.accuracy(generate(captions, list(range(NOISE_SEED, NOISE_SEED + count))), stated)
    return rows


def _bits(entropies: dict[str, float]) -> str:
    return "  ".join(f"{name} {bits:.2f} of {log2(len(ATTRIBUTES[name])):.2f}" for name, bits in entropies.items())


def print_accuracy(rows: dict[str, Accuracy]) -> None:
    """One line per kind of caption, then the entropy of what partial captions leave open."""
    for kind, row in rows.items():
        shares = "  ".join(f"{name} {share:.3f}" for name, share in row.per_attribute.items())
        print(f"  {kind:8s} n {row.count}  stated right {row.stated:.3f}  valid {row.valid:.3f}  {shares}")
    print(f"  entropy of what partial captions leave open, bits: {_bits(rows['partial'].entropy)}")


def print_removal(model: Backbone, plain: Generate, alphas: list[float], count: int) -> None:
    """What NASA removes of the student's own modal pairs, mean over the pairs, one line per alpha."""
    pairs = measure.modal_pairs(plain)
    for pair in pairs:
        print(f'  pair: "{pair.prompt}" not "{pair.negative}" (drawn {pair.share:.2f})')
    for alpha in (0.0, *alphas):
        generate = OneStep(model=model, scale=alpha)
        mean = measure.mean_removal(measure.removal_table(generate, pairs, steer=alpha > 0, count=count))
        print(f"  alpha {alpha:<5g}" + "".join(f"  {name} {share:.3f}" for name, share in asdict(mean).items()))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shapes.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="diffusers folder or safetensors file of this project")
    roles = ("teacher", "student")
    parser.add_argument("--as", dest="role", choices=roles, default="student", help="20 DDIM steps at cfg 3, or 1 step")
    parser.add_argument("--count", type=int, default=400, help="captions of each kind")
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.3, 0.5, 0.8, 1.0], help="of NASA; none: no table")
    parser.add_argument("--pair-images", type=int, default=100, help="for each pair of prompt and negative")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write accuracy and entropy to this file")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    model = load_backbone(arguments.model)
    student = arguments.role == "student"
    plain: Generate = OneStep(model=model) if student else ManySteps(model=model)
    start = time.monotonic()
    print(f"{arguments.model} as {arguments.role}: {'one step' if student else '20 DDIM steps, cfg 3'}")
    rows = accuracy_rows(plain, arguments.count)
    print_accuracy(rows)
    spread = measure.prompt_entropy(plain, list(OPEN), count=50, seed=NOISE_SEED)
    print("  entropy within one prompt that leaves it open, bits: " + _bits(spread))
    if student and arguments.alphas:
        print_removal(model, plain, arguments.alphas, arguments.pair_images)
    print(f"  {time.monotonic() - start:.0f} s")
    if arguments.json:
        about = {"model": arguments.model, "fingerprint": fingerprint(model.network), "role": arguments.role}
        accuracy = {kind: asdict(row) for kind, row in rows.items()}
        result = {**about, "accuracy": accuracy, "prompt_entropy": spread}
        write_atomically(arguments.json, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
