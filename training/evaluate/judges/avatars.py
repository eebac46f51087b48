"""The readers of the avatars' world as a judge: what is drawn, and whether it is one clean picture."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from training.evaluate.judges.verdict import Verdict
from training.evaluate.sets.pairs import Pair
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.parse import parse
from training.prompts.avatars.rules import read


def judge(pictures: list[Image.Image], pair: Pair) -> list[Verdict]:
    """Judge pictures of avatars.

    Raises:
        ValueError: the negative names nothing of this world, or the pictures have another size.
    """
    unwanted, asked = parse(pair.negative), parse(pair.positive)
    unwanted.pop(SUBJECT, None)
    if not unwanted:
        raise ValueError(
            f"pair {pair}: the avatars' world knows no {pair.negative!r}; it knows words such as glasses, a beard, "
            "a hat, long hair, horns, a ring (training/prompts/avatars)"
        )
    reading = read(torch.stack([pil_to_tensor(picture.convert("RGB")) for picture in pictures]).float() / 255)
    return [
        Verdict(
            absent=not any(reading.shows(row, {name: values}) for name, values in unwanted.items()),
            kept=reading.shows(row, asked),
            valid=bool(reading.valid[row]),
        )
        for row in range(len(pictures))
    ]
