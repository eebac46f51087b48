"""Text and pages, drawn by Pillow, which every host has."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFont

PAPER, INK, SOFT, LINE = "#ffffff", "#1b1f24", "#6a737d", "#d0d7de"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_of(size: int) -> Font:
    """Pillow's own, so that it is on every machine."""
    return ImageFont.load_default(size)


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def to_image(page: Image.Image) -> torch.Tensor:
    """The host's IMAGE, (1, h, w, 3) in [0, 1]."""
    return torch.from_numpy(np.asarray(page.convert("RGB"), dtype=np.float32) / 255.0).unsqueeze(0)
