"""`python -m experiments.avatars.judges`: two ways to read the same pictures, beside each other.

The classifier names an attribute's value by itself. The other judge needs no training: it draws the avatar that was
read once with each value of that attribute, and takes the value whose drawing is nearest to the picture. Both say for
each picture of the fixed pairs, without the negative and with NASA, whether the unwanted is absent.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.avatars.world import AVATARS
from experiments.json_file import read_results, write_json
from experiments.sampling import one_step
from snoopi_core.formats.checkpoint import read_metadata
from training.models.backbone import fingerprint
from training.models.loading import load_backbone
from training.prompts.avatars.draw import render
from training.prompts.avatars.rules import errors, read
from training.prompts.avatars.scene import SUBJECTS, Scene, complete, visible

SEED = 97_000  # of pictures; not used elsewhere


def alternatives(scene: Scene, attribute: str) -> list[Scene]:
    """The scene with each value of an attribute. What only then can be seen, as hair's colour, takes each value too.

    Empty if the scene does not have the attribute.
    """
    table = SUBJECTS[scene.subject].attributes
    if attribute not in scene.values:
        return []
    found = []
    for value in table[attribute].values:
        values = {**scene.values, attribute: value}
        new = [name for name in table if name not in values and visible(table[name], values)]
        for several in product(*(table[name].values for name in new)):
            found.append(complete(scene.subject, values | dict(zip(new, several, strict=True))))
    return found


def nearest_values(images: torch.Tensor, scenes: list[Scene], attribute: str) -> list[str | None]:
    """For each image (B, 3, 64, 64): the value of an attribute whose drawing is nearest; None if there is no such."""
    found: list[str | None] = []
    for image, scene in zip(images, scenes, strict=True):
        several = alternatives(scene, attribute)
        if not several:
            found.append(None)
            continue
        mean, square = errors(image.expand(len(several), -1, -1, -1), render(several))
        # What differs is a small part of the picture, so the worst square counts too.
        found.append(several[int((mean + square / 4).argmin())].values[attribute])
    return found


def compare(images: torch.Tensor, attribute: str, unwanted: tuple[str, ...]) -> dict[str, int]:
    """Numbers of images (B, 3, 64, 64): absent by each judge, both agree; of the valid ones, and agreeing in them."""
    reading = read(images)
    nearest = nearest_values(images, reading.scenes, attribute)
    absent = [reading.value(row, attribute) not in unwanted for row in range(len(images))]
    other = [value not in unwanted for value in nearest]
    agree = [one == two for one, two in zip(absent, other, strict=True)]
    valid = reading.valid.tolist()
    return {
        "classifier": sum(absent),
        "drawing": sum(other),
        "agree": sum(agree),
        "valid": sum(valid),
        "agree_valid": sum(map(all, zip(agree, valid, strict=True))),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars.judges", description=__doc__)
    parser.add_argument("model", nargs="?", default=AVATARS.student)
    parser.add_argument("--alpha", type=float, help="default: what the file recommends")
    parser.add_argument("--images", type=int, default=50, help="for each pair, without and with the negative")
    parser.add_argument("--json", type=Path, default=Path("docs/data/judges.json"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    model = load_backbone(args.model)
    alpha = read_metadata(args.model).recommended_alpha if args.alpha is None else args.alpha
    if alpha is None:
        print(f"error: {args.model} recommends no alpha: give one with --alpha", file=sys.stderr)
        return 2
    about = {"model": args.model, "fingerprint": fingerprint(model.network)}
    about |= {"reader": AVATARS.reader, "alpha": alpha, "images": args.images, "seed": SEED}
    found = read_results(args.json, about) or {**about, "pairs": []}
    for pair in tqdm(AVATARS.fixed[len(found["pairs"]) :], unit="pair"):
        row: dict[str, object] = {"prompt": pair.prompt, "negative": pair.negative}
        for name, scale in (("without", 0.0), ("with", alpha)):
            generate = one_step(model, scale=scale)
            negative = pair.negative if scale else None
            images = generate([pair.prompt] * args.images, list(range(SEED, SEED + args.images)), negative)
            row[name] = compare(images.clamp(0, 1), pair.attribute, pair.values)
        found["pairs"].append(row)
        write_json(args.json, found)
    print(f"{args.json}: {len(found['pairs'])} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
