"""A chart of all layers' strengths as bars, below sentences that explain them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageDraw

from ..guidance.strength import CLOSE_COSINE, STRONG_CHANGE, LayerStrength
from ..guidance.verdict import OK
from .drawing import GREEN, GREY, INK, PAPER, RULE, load_font, to_image_tensor, wrap_text

WIDTH = 1024
_MARGIN, _LEFT, _PANEL, _TITLE = 24, 64, 150, 60  # _LEFT: space for the numbers beside a panel
_COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")  # of the negatives, repeated if there are more
_CHANGE, _LIMIT = "#57606a", "#d1242f"
_MAX_NUMBERED = 24  # with more bars there is no room for their values


def strength_chart(sentences: Sequence[str], layers: Sequence[LayerStrength]) -> torch.Tensor:
    """A page, (1, H, W, 3) in [0, 1]: the first sentence, the verdict, is large; only text if there are no layers."""
    large, head, small = load_font(30), load_font(18), load_font(14)
    first = wrap_text(sentences[0], large, WIDTH - 2 * _MARGIN)
    lines = [line for sentence in sentences[1:] for line in wrap_text(sentence, head, WIDTH - 2 * _MARGIN)]
    below = _MARGIN + len(first) * 40 + 4
    top = below + len(lines) * 26 + 12
    names = 10 + (max(math.ceil(small.getlength(layer.name)) for layer in layers) if layers else 0)
    height = top + (3 * (_TITLE + _PANEL) + names if layers else 0) + _MARGIN
    page = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(first):
        colour = GREEN if sentences[0] == OK else _LIMIT
        draw.text((_MARGIN, _MARGIN + number * 40), line, fill=colour, font=large)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, below + number * 26), line, fill=INK, font=head)
    if not layers:
        return to_image_tensor(page)

    def of_negatives(number: Callable) -> list[list[tuple[str, float]]]:
        return [[(_colour(n), number(response)) for n, response in layer.negatives.items()] for layer in layers]

    changes = [[(_CHANGE, layer.change)] for layer in layers]
    # Title, formula, bars, lowest value, limit and its name.
    panels = (
        ("How strong the negative is, next to the prompt (1: as strong)", "|Z-| / |Z+|",
         of_negatives(lambda r: r.ratio), 0.0, None, ""),
        ("How alike negative and prompt are (1: the same, 0: nothing in common)", "cos(Z+, Z-)",
         of_negatives(lambda r: r.cosine), -1.0, CLOSE_COSINE, "red line: too alike, if the mean is above it"),
        ("How much the layer changes (0: not at all)", "|Z_NASA - Z+| / |Z+|",
         changes, 0.0, STRONG_CHANGE, "red line: too strong, if the mean is above it"),
    )  # fmt: skip
    _draw_legend(draw, top + _TITLE * 0.68, sorted({number for layer in layers for number in layer.negatives}))
    for title, formula, bars, low, limit, name in panels:
        draw.text((_MARGIN, top + _TITLE * 0.38), title, fill=INK, font=load_font(17), anchor="lm")
        draw.text((_MARGIN, top + _TITLE * 0.74), formula, fill=GREY, font=load_font(12), anchor="lm")
        _draw_panel(draw, top + _TITLE, bars, low, limit, name)
        top += _TITLE + _PANEL
    _draw_names(page, top, [layer.name for layer in layers])
    return to_image_tensor(page)


def _draw_panel(
    draw: ImageDraw.ImageDraw, top: int, bars: list[list[tuple[str, float]]], low: float, limit: float | None, name: str
) -> None:
    """Draw each layer's (colour, value) bars from 0, skipping values that are not finite.

    `limit` is drawn as a red line with its name if it lies in the panel.
    """
    values = [value for several in bars for _, value in several if math.isfinite(value)]
    high = 1.0 if low < 0.0 else max(1.0, math.ceil(max(values, default=0.0) * 2.2) / 2)  # leaves room for the values
    small = load_font(14)

    def y(value: float) -> float:
        return top + _PANEL * (high - min(max(value, low), high)) / (high - low)

    for mark in (low, 0.0, high) if low < 0.0 else (0.0, high / 2, high):
        draw.line((_LEFT, y(mark), WIDTH - _MARGIN, y(mark)), fill=RULE)
        draw.text((_LEFT - 8, y(mark)), f"{mark:g}", fill=GREY, font=small, anchor="rm")
    if limit is not None and limit < high:
        draw.line((_LEFT, y(limit), WIDTH - _MARGIN, y(limit)), fill=_LIMIT, width=2)
        # Above the panel, where no bar is.
        draw.text((WIDTH - _MARGIN, top - _TITLE * 0.26), name, fill=_LIMIT, font=load_font(14), anchor="rm")
    for place, several in enumerate(bars):
        left, width = _slot(place, len(bars))
        each = width * 0.8 / len(several)
        for number, (colour, value) in enumerate(several):
            if not math.isfinite(value):
                continue
            start = left + width * 0.1 + number * each
            end = max(start, start + each - 1)  # many bars may be thinner than a pixel
            draw.rectangle((start, min(y(value), y(0.0)), end, max(y(value), y(0.0))), fill=colour)
            if len(values) <= _MAX_NUMBERED:
                above = value >= 0.0
                draw.text(
                    (start + each / 2, y(value) + (-3 if above else 3)),
                    f"{round(value, 2) + 0.0:.2f}", fill=INK, font=small, anchor="mb" if above else "mt",
                    stroke_width=2, stroke_fill=PAPER,
                )  # fmt: skip


def _draw_legend(draw: ImageDraw.ImageDraw, middle: float, numbers: Sequence[int]) -> None:
    """Draw the colours of several negatives, right of the first title, one for each of `_COLOURS` at most."""
    for place, number in enumerate(reversed(numbers[: len(_COLOURS)] if list(numbers) != [0] else ())):
        right = WIDTH - _MARGIN - place * 120
        draw.text((right, middle), f"negative {number + 1}", fill=INK, font=load_font(14), anchor="rm")
        draw.rectangle((right - 104, middle - 6, right - 92, middle + 6), fill=_colour(number))


def _draw_names(page: Image.Image, top: int, names: Sequence[str]) -> None:
    """Write each block's name once, vertically, below its first layer."""
    small = load_font(14)
    for place, name in enumerate(names):
        if place and names[place - 1] == name:
            continue
        left, width = _slot(place, len(names))
        label = Image.new("RGB", (math.ceil(small.getlength(name)), 18), PAPER)
        ImageDraw.Draw(label).text((0, 9), name, fill=GREY, font=small, anchor="lm")
        page.paste(label.rotate(90, expand=True), (round(left + width / 2) - 9, top + 8))


def _slot(place: int, count: int) -> tuple[float, float]:
    """Left edge and width of a layer's slot on the page."""
    width = (WIDTH - _MARGIN - _LEFT) / count
    return _LEFT + place * width, width


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
