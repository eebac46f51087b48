"""Contact sheets: images of the small world in a labelled grid, to be looked at."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw

LABEL = 14  # height of a row's label, pixels
GAP = 2


def contact_sheet(rows: list[tuple[str, torch.Tensor]], path: Path, *, scale: int = 1) -> Path:
    """Write a PNG with one labelled row per entry.

    Args:
        rows: label and images (B, 3, H, W) in [0, 1]; every row has the same H and W.
        path: the file to write; its folder is made.
        scale: whole-number enlargement.
    """
    height, width = rows[0][1].shape[2] * scale, rows[0][1].shape[3] * scale
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
    return path
