"""`python -m experiments.shapes.evaluate`: measure a teacher or a student of the small world.

Prints tables; --json and --sheets keep the numbers and contact sheets. Every number has fixed seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from math import log2
from pathlib import Path
from typing import Any

import torch

from experiments.shapes import measure
from experiments.shapes.measure import Accuracy, Generate, Pair, Removal
from experiments.shapes.sampling import ManySteps, OneStep
from experiments.shapes.sheet import contact_sheet
from training.models.backbone import Backbone, fingerprint
from training.models.loading import load_backbone
from training.prompts.shapes.captions import sentence
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


def one_step_accuracy(model: Backbone, count: int) -> tuple[float, float]:
    """(all stated attributes right, valid image) of one-step images for `count` partial captions."""
    captions, stated = measure.caption_set(count, CAPTION_SEED, "partial")
    row = measure.accuracy(OneStep(model=model)(captions, list(range(NOISE_SEED, NOISE_SEED + count))), stated)
    return row.stated, row.valid


def print_accuracy(rows: dict[str, Accuracy]) -> None:
    """One line per kind of caption, then the entropy of what partial captions leave open."""
    for kind, row in rows.items():
        shares = "  ".join(f"{name} {share:.3f}" for name, share in row.per_attribute.items())
        print(f"  {kind:8s} n {row.count}  stated right {row.stated:.3f}  valid {row.valid:.3f}  {shares}")
    print(f"  entropy over partial captions that leave it open, bits: {_bits(rows['partial'].entropy)}")


def _bits(entropies: dict[str, float]) -> str:
    return "  ".join(f"{name} {bits:.2f} of {log2(len(ATTRIBUTES[name])):.2f}" for name, bits in entropies.items())


def print_removal(title: str, rows: list[Removal], before: list[Removal]) -> dict[str, dict[str, float]]:
    """The two means of a method, as a line; returned as well."""
    means = {
        "all": measure.mean_removal(rows),
        "lower": measure.mean_removal(rows, measure.lower_baseline_half(before)),
    }
    text = "   ".join(
        f"absent {m.absent:.3f}  clean {m.clean:.3f}  kept {m.kept:.3f}  valid {m.valid:.3f}" for m in means.values()
    )
    print(f"  {title:22s} {text}")
    return {name: asdict(mean) for name, mean in means.items()}


def negatives(
    model: Backbone,
    pairs: list[Pair],
    *,
    timestep: int | None,
    alphas: list[float],
    cfgs: list[float],
    count: int,
    seed: int,
) -> dict[str, Any]:
    """The removal table of every method on one step; printed and returned."""

    def table(method: str, scale: float, steer: bool = True) -> list[Removal]:
        generate = OneStep(model=model, timestep=timestep, method=method, scale=scale)
        return measure.removal_table(generate, pairs, steer=steer, count=count, seed=seed)

    before = table("nasa", 0.0, steer=False)
    print(f"  {'mean over':22s} {'all pairs':52s}   lower-baseline half")
    found: dict[str, Any] = {"none": print_removal("no negative", before, before)}
    per_pair = {"none": [asdict(row) for row in before]}
    for method, scale in (
        [("nasa", a) for a in alphas]
        + [("cfg", c) for c in cfgs]
        + [("embeddings", s) for s in ((0.5, 1.0) if cfgs else ())]
    ):
        rows = table(method, scale)
        found[f"{method} {scale:g}"] = print_removal(f"{method} {scale:g}", rows, before)
        per_pair[f"{method} {scale:g}"] = [asdict(row) for row in rows]
    return {
        "count": count,
        "seed": seed,
        "means": found,
        "pairs": [asdict(pair) | {"negative": pair.negative} for pair in pairs],
        "per_pair": per_pair,
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shapes.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="diffusers folder or safetensors file of this project")
    parser.add_argument(
        "--as",
        dest="role",
        choices=("teacher", "student"),
        default="student",
        help="20 DDIM steps at cfg 3, or one step",
    )
    parser.add_argument("--count", type=int, default=400, help="captions of each kind")
    parser.add_argument("--timestep", type=int, help="of the one step; default: what the file says")
    parser.add_argument(
        "--alphas", type=float, nargs="*", default=[0.3, 0.5, 0.8, 1.0], help="NASA strengths to try; none: no table"
    )
    parser.add_argument("--cfgs", type=float, nargs="*", default=[1.5, 3.0, 4.5], help="CFG scales for comparison")
    parser.add_argument("--pairs", type=int, default=4, help="modal pairs per attribute")
    parser.add_argument("--pair-images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=90_000, help="first noise seed of the removal table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    model = load_backbone(arguments.model)
    student = arguments.role == "student"
    plain: Generate = OneStep(model=model, timestep=arguments.timestep) if student else ManySteps(model=model)
    start = time.monotonic()
    print(f"{arguments.model} as {arguments.role}: {'one step' if student else '20 DDIM steps, cfg 3'}")
    rows = accuracy_rows(plain, arguments.count)
    print_accuracy(rows)
    spread = measure.prompt_entropy(plain, list(OPEN), count=50, seed=NOISE_SEED)
    print("  entropy within one prompt that leaves it open, bits: " + _bits(spread))
    result: dict[str, Any] = {
        "model": arguments.model,
        "fingerprint": fingerprint(model.network),
        "role": arguments.role,
        "accuracy": {kind: asdict(row) for kind, row in rows.items()},
        "prompt_entropy": spread,
    }
    if arguments.sheets:
        captions, _ = measure.caption_set(12, CAPTION_SEED, "partial")
        shown = [(text, plain([text] * 10, list(range(10)))) for text in [*map(sentence, OPEN), *captions]]
        contact_sheet(shown, arguments.sheets / f"{arguments.role}.png")
    if student and arguments.alphas:
        pairs = measure.modal_pairs(plain, per_attribute=arguments.pairs)
        for pair in pairs:
            print(f'  pair: "{pair.prompt}" not "{pair.negative}" (drawn {pair.share:.2f})')
        result["removal"] = negatives(
            model,
            pairs,
            timestep=arguments.timestep,
            alphas=arguments.alphas,
            cfgs=arguments.cfgs,
            count=arguments.pair_images,
            seed=arguments.seed,
        )
        if arguments.sheets:
            shown = []
            for pair in pairs:
                seeds = list(range(arguments.seed, arguments.seed + 12))
                for alpha in (0.0, *arguments.alphas):
                    steered = OneStep(model=model, timestep=arguments.timestep, scale=alpha)
                    label = f"{pair.prompt}  -  {pair.negative}  alpha {alpha:g}"
                    shown.append((label, steered([pair.prompt] * 12, seeds, pair.negative)))
            contact_sheet(shown, arguments.sheets / "nasa.png")
    print(f"  {time.monotonic() - start:.0f} s")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
