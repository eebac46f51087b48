"""Colours, fonts and text layout for pages drawn with Pillow."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFont

PAPER, INK, GREY, RULE, GREEN = "#ffffff", "#1b1f24", "#6a737d", "#d0d7de", "#1a7f37"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def load_font(size: int) -> Font:
    """Pillow's built-in font, which exists on every machine."""
    return ImageFont.load_default(size)


def wrap_text(text: str, font: Font, width: int) -> list[str]:
    """Split `text` between words into lines of at most `width` pixels; a longer word gets a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def to_image_tensor(page: Image.Image) -> torch.Tensor:
    """The page as the host's IMAGE, (1, h, w, 3) in [0, 1]."""
    return torch.from_numpy(np.asarray(page.convert("RGB"), dtype=np.float32) / 255.0).unsqueeze(0)
