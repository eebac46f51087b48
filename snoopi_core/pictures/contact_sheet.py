"""Pictures side by side on one page, each column under its label.

Dimensions: A labels, R pictures of each, h x w height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isqrt

import torch
from PIL import Image, ImageDraw

from .drawing import GREEN, GREY, INK, PAPER, load_font, to_image_tensor, wrap_text

MIN_SIDE, MAX_SIDE = 256, 512
"""Limits of a picture's longer side on the page, in pixels: small pictures are enlarged, large ones reduced."""
MAX_PIXELS = 2**24
"""Of all pictures on the page together: many pictures are drawn smaller. This keeps the IMAGE below 300 MB."""
MAX_COLUMNS, MAX_ROWS = 5, 8
"""Most pictures side by side, and most pictures of one label."""
_GAP, _MARGIN, _FRAME = 8, 16, 4


def contact_sheet(
    pictures: Sequence[torch.Tensor], labels: Sequence[str], *, marked: int | None = None, note: str = ""
) -> torch.Tensor:
    """All pictures on one page, (1, H, W, 3) in [0, 1].

    Each label is a column, with its pictures below it. More labels than `MAX_COLUMNS` continue below, in bands of equal
    width; of more pictures than `MAX_ROWS`, an evenly spaced selection is shown.

    Args:
        pictures: (R, h, w, 3) in [0, 1] for each label, all of the same shape.
        marked: the number of a label whose column has a green frame.
        note: a sentence at the bottom of the page.
    """
    chosen = _evenly_spaced(len(pictures[0]), MAX_ROWS)
    largest = _max_side(*pictures[0].shape[1:3], count=len(pictures) * len(chosen))
    tiles = [[_tile(several[row], largest) for row in chosen] for several in pictures]
    width, height = tiles[0][0].size
    font = load_font(max(16, width // 14))
    # Space for the label above, and for the row number beside each row if there are several rows.
    above = font.size * 2
    beside = 0 if len(chosen) == 1 else round(font.getlength(f"#{chosen[-1] + 1}")) + _GAP

    bands = ceil(len(labels) / MAX_COLUMNS)
    columns = ceil(len(labels) / bands)
    pitch = max(width, *(ceil(font.getlength(label)) for label in labels)) + _GAP
    band_height = above + len(chosen) * (height + _GAP)
    wide = 2 * _MARGIN + beside + columns * pitch - _GAP
    lines = wrap_text(note, font, wide - 2 * _MARGIN) if note else []
    top_of_note = _MARGIN + bands * band_height + _GAP
    page = Image.new("RGB", (wide, top_of_note + ceil(len(lines) * 1.4 * font.size) + _MARGIN - 2 * _GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, top_of_note + number * 1.4 * font.size), line, fill=GREEN, font=font)
    for number, (label, column) in enumerate(zip(labels, tiles, strict=True)):
        band, place = divmod(number, columns)
        middle, top = _MARGIN + beside + place * pitch + (pitch - _GAP) // 2, _MARGIN + band * band_height
        draw.text((middle, top + above / 2), label, fill=GREEN if number == marked else INK, font=font, anchor="mm")
        if number == marked:  # in the gaps between the pictures, so that it covers none
            left, bottom = middle - width // 2, top + above + len(chosen) * (height + _GAP) - _GAP
            frame = (left - _FRAME, top + above - _FRAME, left + width + _FRAME - 1, bottom + _FRAME - 1)
            draw.rectangle(frame, outline=GREEN, width=_FRAME)
        for row, tile in enumerate(column):
            y = top + above + row * (height + _GAP)
            page.paste(tile, (middle - width // 2, y))
            if beside and place == 0:
                draw.text((_MARGIN, y + height / 2), f"#{chosen[row] + 1}", fill=GREY, font=font, anchor="lm")
    return to_image_tensor(page)


def _max_side(height: int, width: int, *, count: int) -> int:
    """The longest side L of `count` pictures: L^2 x shorter / longer pixels each, at most `MAX_PIXELS` in total."""
    longer, shorter = max(height, width), min(height, width)
    return min(MAX_SIDE, max(1, isqrt(MAX_PIXELS * longer // (count * shorter))))


def _tile(picture: torch.Tensor, largest: int) -> Image.Image:
    """A picture (h, w, 3), resized for the page."""
    pixels = (picture[..., :3].float().clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()
    image = Image.fromarray(pixels)
    longer = max(image.size)
    if longer < min(MIN_SIDE, largest):
        # By a whole number, so that all pixels stay squares of the same size.
        factor = min(ceil(MIN_SIDE / longer), max(1, largest // longer))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longer > largest:
        size = (max(1, round(side * largest / longer)) for side in image.size)
        return image.resize(tuple(size), Image.Resampling.LANCZOS)
    return image


def _evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, including the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]
