"""The small world's pixel rules as a judge: exact, no network."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from training.evaluate.judges import Verdict
from training.evaluate.sets.pairs import Pair
from training.prompts.shapes.captions import phrase
from training.prompts.shapes.rules import read
from training.prompts.shapes.scene import ATTRIBUTES


def stated(words: str) -> dict[str, str]:
    """The attributes that a caption or a tag of the small world names."""
    found = {}
    left = words.lower().replace(",", " ").split()
    for attribute in ("background", *(name for name in ATTRIBUTES if name != "background")):
        for value in ATTRIBUTES[attribute]:
            said = phrase(attribute, value).split()
            for n in range(len(left) - len(said) + 1):
                if left[n : n + len(said)] == said:
                    found[attribute] = value
                    del left[n : n + len(said)]
                    break
    return found


def judge(pictures: list[Image.Image], pair: Pair) -> list[Verdict]:
    """Read the pictures back.

    Raises:
        ValueError: the pair is not of the small world, or the pictures are not.
    """
    unwanted, asked = stated(pair.negative), stated(pair.positive)
    if not unwanted:
        raise ValueError(f"pair {pair}: the pixel rules know no {pair.negative!r}; they know {_known()}")
    reading = read(torch.stack([pil_to_tensor(picture.convert("RGB")) for picture in pictures]).float() / 255)

    def shows(row: int, values: dict[str, str]) -> bool:
        return all(reading.values[name][row] == value for name, value in values.items())

    return [
        Verdict(
            absent=not any(shows(row, {name: value}) for name, value in unwanted.items()),
            kept=shows(row, asked),
            valid=bool(reading.valid[row]),
        )
        for row in range(len(pictures))
    ]


def _known() -> str:
    return ", ".join(phrase(name, value) for name, values in ATTRIBUTES.items() for value in values)
