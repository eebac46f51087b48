"""Contact sheets like the paper's Figures 3 and 5, of the pairs that were measured."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from experiments.negatives.results import Negatives
from experiments.negatives.settings import STRENGTHS
from experiments.shapes.measure import Pair
from experiments.shapes.sampling import one_step
from training.models.backbone import Backbone
from training.models.guidance.methods import Method

SCALE = 2  # enlargement of the images
LABEL = 14  # height of a row's label, pixels
GAP = 2


def draw_sheets(model: Backbone, found: Negatives, pairs: list[Pair], folder: Path) -> None:
    """Write results-alpha-sheet.png and results-methods.png: every second pair a row, a column for each method."""
    plain, seed = Method("none"), found.protocol["seeds"][0]
    alphas = [Method("nasa", alpha) for alpha in found.strengths("nasa")]
    best = [Method.parse(found.best(name).partition(" ")[2]) for name in STRENGTHS]
    for name, methods in (("results-alpha-sheet", alphas), ("results-methods", best)):
        rows = [
            (
                f"{pair.prompt}  -  {pair.negative}",
                torch.cat([_picture(model, pair, method, seed) for method in (plain, *methods)]),
            )
            for pair in pairs[::2]
        ]
        contact_sheet(rows, folder / f"{name}.png")


def _picture(model: Backbone, pair: Pair, method: Method, seed: int) -> torch.Tensor:
    """(1, 3, 64, 64)"""
    return one_step(model, method.name, method.strength)([pair.prompt], [seed], pair.negative)


def contact_sheet(rows: list[tuple[str, torch.Tensor]], path: Path) -> None:
    """Write a PNG with one row for each label and its images (B, 3, H, W) in [0, 1], all of the same size."""
    height, width = (side * SCALE for side in rows[0][1].shape[2:])
    columns = max(len(images) for _, images in rows)
    sheet = Image.new("RGB", (columns * (width + GAP), len(rows) * (height + LABEL)), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    for n, (label, images) in enumerate(rows):
        top = n * (height + LABEL)
        draw.text((2, top + 1), label, fill="#000000")
        pixels = (images.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for column, image in enumerate(pixels):
            tile = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (width + GAP), top + LABEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
