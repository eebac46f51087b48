"""`python -m experiments.avatars.evaluate`: measure a teacher or a student of the avatars' world.

Prints as JSON how well it follows captions, how many pictures are valid, and how varied they are. All seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from experiments.avatars import measure
from experiments.shapes.measure import Generate
from experiments.shapes.sampling import ManySteps, one_step
from snoopi_core.formats.atomic import write_atomically
from training.models.backbone import fingerprint
from training.models.loading import load_backbone
from training.prompts.avatars.rules import read

CAPTION_SEED, NOISE_SEED = 10_000, 20_000


def sheet(images: torch.Tensor, columns: int = 20) -> Image.Image:
    """A page of images (B, 3, H, W) in [0, 1]."""
    height, width = images.shape[2:]
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    for n, image in enumerate((images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        page.paste(Image.fromarray(image), ((n % columns) * width, (n // columns) * height))
    return page


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars.evaluate", description=__doc__)
    parser.add_argument("model", help="diffusers folder or safetensors file of this project")
    roles = ("teacher", "student")
    parser.add_argument("--as", dest="role", choices=roles, default="student", help="20 DDIM steps at cfg 3, or 1 step")
    parser.add_argument("--count", type=int, default=200, help="captions of each kind")
    parser.add_argument("--variety", type=int, default=50, help="images for each prompt that leaves much open; 0: none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sheet", type=Path, help="write the pictures of partial captions to this PNG")
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    model = load_backbone(arguments.model)
    generate: Generate = one_step(model) if arguments.role == "student" else ManySteps(model=model)
    result: dict[str, object] = {"model": arguments.model, "fingerprint": fingerprint(model.network)}
    for kind in measure.KINDS:
        captions, stated = measure.caption_set(arguments.count, CAPTION_SEED, kind)
        images = generate(captions, list(range(NOISE_SEED, NOISE_SEED + arguments.count)))
        if arguments.sheet and kind == "partial":
            arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
            sheet(images).save(arguments.sheet)
        result[kind] = asdict(measure.accuracy(read(images), stated))
    if arguments.variety:
        result["prompt_entropy"] = measure.prompt_entropy(generate, count=arguments.variety, seed=NOISE_SEED)
    text = json.dumps({**result, "role": arguments.role}, indent=2)
    print(text)
    if arguments.json:
        write_atomically(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
