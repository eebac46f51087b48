"""Pictures side by side on one page, each column under its label.

Dimensions: A labels, R pictures of each, h x w height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isqrt

import torch
from PIL import Image, ImageDraw

from .drawing import INK, PAPER, SOFT, font_of, to_image

SMALLEST, LARGEST = 256, 512
"""The longer side of a picture on the page, in pixels: small ones are enlarged, large ones reduced."""
PIXELS = 2**24
"""Of all pictures on the page together: where there are many they are smaller.

With labels and gaps the page is an IMAGE of less than 300 MB.
"""
COLUMNS, ROWS = 5, 8
"""At most, of pictures side by side, and of pictures of one label."""
_GAP, _MARGIN = 8, 16


def contact_sheet(pictures: Sequence[torch.Tensor], labels: Sequence[str]) -> torch.Tensor:
    """All pictures on one page, (1, H, W, 3) in [0, 1].

    From left to right the labels, and down the page the pictures of each. More labels than `COLUMNS` go on below, in
    bands of equal width; of more pictures than `ROWS`, those at equal distances are shown.

    Args:
        pictures: (R, h, w, 3) in [0, 1] for each label, all of the same shape.
    """
    chosen = _spread(len(pictures[0]), ROWS)
    largest = _largest(*pictures[0].shape[1:3], count=len(pictures) * len(chosen))
    tiles = [[_tile(several[row], largest) for row in chosen] for several in pictures]
    width, height = tiles[0][0].size
    font = font_of(max(16, width // 14))
    # Room for a label, and beside each row for its number, where there are several.
    above = font.size * 2
    beside = 0 if len(chosen) == 1 else round(font.getlength(f"#{chosen[-1] + 1}")) + _GAP

    bands = ceil(len(labels) / COLUMNS)
    columns = ceil(len(labels) / bands)
    pitch = max(width, *(ceil(font.getlength(label)) for label in labels)) + _GAP
    band_height = above + len(chosen) * (height + _GAP)
    size = (2 * _MARGIN + beside + columns * pitch - _GAP, 2 * _MARGIN + bands * band_height - _GAP)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    for number, (label, column) in enumerate(zip(labels, tiles, strict=True)):
        band, place = divmod(number, columns)
        middle, top = _MARGIN + beside + place * pitch + (pitch - _GAP) // 2, _MARGIN + band * band_height
        draw.text((middle, top + above / 2), label, fill=INK, font=font, anchor="mm")
        for row, tile in enumerate(column):
            y = top + above + row * (height + _GAP)
            page.paste(tile, (middle - width // 2, y))
            if beside and place == 0:
                draw.text((_MARGIN, y + height / 2), f"#{chosen[row] + 1}", fill=SOFT, font=font, anchor="lm")
    return to_image(page)


def _largest(height: int, width: int, *, count: int) -> int:
    """The longer side that `count` pictures may have: L^2 x shorter / longer pixels each, `PIXELS` together."""
    longer, shorter = max(height, width), min(height, width)
    return min(LARGEST, max(1, isqrt(PIXELS * longer // (count * shorter))))


def _tile(picture: torch.Tensor, largest: int) -> Image.Image:
    """(h, w, 3) as it is shown."""
    pixels = (picture[..., :3].float().clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()
    image = Image.fromarray(pixels)
    longer = max(image.size)
    if longer < min(SMALLEST, largest):
        # By a whole number, so that pixels stay squares of one size.
        factor = min(ceil(SMALLEST / longer), max(1, largest // longer))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longer > largest:
        size = (max(1, round(side * largest / longer)) for side in image.size)
        return image.resize(tuple(size), Image.Resampling.LANCZOS)
    return image


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, first and last among them."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]
