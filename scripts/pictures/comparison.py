"""Draws the demo's picture: rows of pictures, then each prompt with the same noise without and with its negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from snoopi_core.pictures.drawing import GREY, INK, PAPER, RULE, load_font

TILE, GAP, MARGIN, TEXT_WIDTH = 128, 8, 40, 400
BLOCK_SPACE, ROW_LABEL = 44, 26
ACCENT = "#d1242f"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of pictures; ``unwanted`` marks those that show what the negative names."""

    label: str
    pictures: Sequence[Image.Image]
    unwanted: Sequence[bool]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A prompt and negative: two rows of the same noise, and the counts over the whole sample."""

    prompt: str
    negative: str
    rows: tuple[Row, Row]
    counted: str


def _draw_row(page: Image.Image, row: Row, left: int, top: int, tile: int = TILE) -> int:
    draw = ImageDraw.Draw(page)
    draw.text((left, top), row.label, fill=GREY, font=load_font(16))
    top += ROW_LABEL
    for number, (picture, unwanted) in enumerate(zip(row.pictures, row.unwanted, strict=True)):
        x = left + number * (tile + GAP)
        page.paste(picture.resize((tile, tile), Image.Resampling.LANCZOS), (x, top))
        outline = {"outline": ACCENT, "width": 4} if unwanted else {"outline": RULE, "width": 1}
        draw.rectangle((x - 1, top - 1, x + tile, top + tile), **outline)
    return top + tile + GAP


def _draw_block(page: Image.Image, block: Block, top: int) -> int:
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, top + ROW_LABEL), block.prompt, fill=INK, font=load_font(26))
    draw.text((MARGIN, top + ROW_LABEL + 40), f"negative: {block.negative}", fill=ACCENT, font=load_font(26))
    draw.multiline_text((MARGIN, top + ROW_LABEL + 92), block.counted, fill=GREY, font=load_font(18), spacing=8)
    for row in block.rows:
        top = _draw_row(page, row, MARGIN + TEXT_WIDTH, top)
    return top + BLOCK_SPACE


def comparison(title: str, subtitle: str, first: Sequence[Row], blocks: Sequence[Block], footer: str) -> Image.Image:
    """The whole page. `first`: rows at its beginning, as wide as the page."""
    columns = max(len(row.pictures) for row in (*first, *(row for block in blocks for row in block.rows)))
    width = 2 * MARGIN + TEXT_WIDTH + columns * (TILE + GAP)
    large = (width - 2 * MARGIN) // columns - GAP
    height = 3 * MARGIN + 90 + len(blocks) * (2 * (ROW_LABEL + TILE + GAP) + BLOCK_SPACE)
    height += len(first) * (ROW_LABEL + large + GAP) + BLOCK_SPACE
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=load_font(38))
    draw.text((MARGIN, MARGIN + 52), subtitle, fill=GREY, font=load_font(20))
    top = MARGIN + 110
    for row in first:
        top = _draw_row(page, row, MARGIN, top, large)
    top += BLOCK_SPACE
    for block in blocks:
        top = _draw_block(page, block, top)
    draw.text((MARGIN, top - 8), footer, fill=GREY, font=load_font(18))
    return page
