"""A labelled grid of samples: one column for each prompt, the teacher's images above the student's."""

from __future__ import annotations

import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont

from training.trainer.monitor.caption_font import caption_font

MARGIN, GAP, TEXT = 24, 2, 12  # pixels: width of row labels, space between images, font size
LINES = 4  # of a prompt above its column


def sample_grid(prompts: list[str], groups: list[tuple[str, torch.Tensor]]) -> Image.Image:
    """Draw the grid.

    Args:
        prompts: P prompts; long ones are shortened.
        groups: a label and images (P, K, 3, H, W) uint8 each; every group has K rows below the group before it.
    """
    height, width = groups[0][1].shape[-2:]
    font, replaced = caption_font([*prompts, *(label for label, _ in groups)], TEXT)
    line = TEXT + 2
    header = LINES * line + 6
    rows = sum(tiles.shape[1] for _, tiles in groups)
    size = (MARGIN + len(prompts) * (width + GAP), header + rows * (height + GAP) + GAP * len(groups) * 2)
    grid = Image.new("RGB", size, "#ffffff")
    draw = ImageDraw.Draw(grid)
    for column, prompt in enumerate(prompts):
        caption = " ".join(f"{column + 1}. {prompt}".translate(replaced).split())
        letters = max(8, int(width * len(caption) / font.getlength(caption)))  # Chinese ones are twice as wide
        for n, part in enumerate(textwrap.wrap(caption, letters, max_lines=LINES, placeholder=" …")):
            draw.text((MARGIN + column * (width + GAP), 2 + n * line), part, fill="#000000", font=font)
    top = header
    for label, tiles in groups:
        block = tiles.shape[1] * (height + GAP)
        grid.paste(_upright(label.translate(replaced), block, font), (0, top))
        for column, seeds in enumerate(tiles.permute(0, 1, 3, 4, 2).numpy()):
            for row, pixels in enumerate(seeds):
                grid.paste(Image.fromarray(pixels), (MARGIN + column * (width + GAP), top + row * (height + GAP)))
        top += block + GAP * 2
    return grid


def _upright(text: str, length: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Image.Image:
    """Vertical text, centred in `length` pixels."""
    strip = Image.new("RGB", (length, MARGIN), "#ffffff")
    ImageDraw.Draw(strip).text((length / 2, MARGIN / 2), text, fill="#000000", font=font, anchor="mm")
    return strip.rotate(90, expand=True)
