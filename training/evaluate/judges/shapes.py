"""The pixel rules of the synthetic shapes data as a judge: exact, without a network."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from training.evaluate.judges.verdict import Verdict
from training.evaluate.sets.pairs import Pair
from training.prompts.shapes.captions import phrase
from training.prompts.shapes.rules import read
from training.prompts.shapes.scene import ATTRIBUTES


def stated(text: str) -> dict[str, str]:
    """The attributes, with their values, that a caption or a tag of the shapes data names."""
    found = {}
    left = text.lower().replace(",", " ").split()
    # "background" first: its phrases contain colours
    for attribute in ("background", *(name for name in ATTRIBUTES if name != "background")):
        for value in ATTRIBUTES[attribute]:
            words = phrase(attribute, value).split()
            for n in range(len(left) - len(words) + 1):
                if left[n : n + len(words)] == words:
                    found[attribute] = value
                    del left[n : n + len(words)]
                    break
    return found


def judge(pictures: list[Image.Image], pair: Pair) -> list[Verdict]:
    """Judge pictures of the shapes data.

    Raises:
        ValueError: the pair or the pictures are not of the shapes data.
    """
    unwanted, asked = stated(pair.negative), stated(pair.positive)
    if not unwanted:
        known = ", ".join(phrase(name, value) for name, values in ATTRIBUTES.items() for value in values)
        raise ValueError(f"pair {pair}: the pixel rules know no {pair.negative!r}; they know {known}")
    reading = read(torch.stack([pil_to_tensor(picture.convert("RGB")) for picture in pictures]).float() / 255)
    return [
        Verdict(
            absent=not any(reading.shows(row, {name: value}) for name, value in unwanted.items()),
            kept=reading.shows(row, asked),
            valid=bool(reading.valid[row]),
        )
        for row in range(len(pictures))
    ]
