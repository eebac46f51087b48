"""Contact sheets like the paper's Figures 3 and 5, of the pairs that were measured."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from experiments.negatives.results import Negatives
from experiments.negatives.settings import STRENGTHS
from experiments.removal import Generate, Pair
from experiments.sampling import one_step
from snoopi_core.pictures.drawing import load_font
from training.models.backbone import Backbone
from training.models.guidance.methods import Method

SCALE = 2  # enlargement of the images
LABEL = 20  # height of a row's label, pixels
GAP = 2
SEEDS = 8  # pictures in a row of the sheet of pairs


def draw_sheets(model: Backbone, found: Negatives, pairs: list[Pair], folder: Path) -> None:
    """Write the sheets.

    results-pairs.png: each fixed pair, some seeds without the negative and with NASA. results-alpha-sheet.png and
    results-methods.png: a pair in each row, a column for each alpha, or for each method at its best strength.
    """
    seed = found.protocol["seeds"][0]
    best = {name: Method.parse(found.best(name).partition(" ")[2]) for name in STRENGTHS}
    chosen = [pair for pair in pairs if pair.fixed] or pairs[::2]
    plain, steered = (_generate(model, method) for method in (Method("none"), best["nasa"]))
    rows = []
    for pair in chosen:
        for words, generate, negative in (("", plain, None), (f", negative: {pair.negative}", steered, pair.negative)):
            images = generate([pair.prompt] * SEEDS, list(range(seed, seed + SEEDS)), negative)
            rows.append((f"{pair.prompt}{words}", images))
    contact_sheet(rows, folder / "results-pairs.png")
    alphas = [Method("nasa", alpha) for alpha in found.strengths("nasa")]
    for name, methods in (("results-alpha-sheet", alphas), ("results-methods", [*best.values()])):
        several = [_generate(model, method) for method in (Method("none"), *methods)]
        rows = [
            (
                f"{pair.prompt}  -  {pair.negative}",
                torch.cat([generate([pair.prompt], [seed], pair.negative) for generate in several]),
            )
            for pair in chosen
        ]
        contact_sheet(rows, folder / f"{name}.png")


def _generate(model: Backbone, method: Method) -> Generate:
    return one_step(model, method.name, method.strength)


def contact_sheet(rows: list[tuple[str, torch.Tensor]], path: Path) -> None:
    """Write a PNG with one row for each label and its images (B, 3, H, W) in [0, 1], all of the same size."""
    height, width = (side * SCALE for side in rows[0][1].shape[2:])
    columns = max(len(images) for _, images in rows)
    sheet = Image.new("RGB", (columns * (width + GAP), len(rows) * (height + LABEL)), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    for n, (label, images) in enumerate(rows):
        top = n * (height + LABEL)
        draw.text((2, top + 2), label, fill="#000000", font=load_font(13))
        pixels = (images.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for column, image in enumerate(pixels):
            tile = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (width + GAP), top + LABEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
