"""The shapes world, as studies of negative prompts see it."""

from __future__ import annotations

import torch

from experiments.removal import Pair, Seen, Stated, World
from experiments.shapes.measure import caption_set
from training.prompts.shapes.captions import phrase, sentence
from training.prompts.shapes.rules import read
from training.prompts.shapes.scene import ATTRIBUTES, render, sample_scenes


def seen(images: torch.Tensor) -> Seen:
    """What the pixel rules read."""
    reading = read(images)
    columns = zip(*reading.values.values(), strict=True)
    return Seen(rows=[dict(zip(reading.values, row, strict=True)) for row in columns], valid=reading.valid.tolist())


def pair(prompt: str, stated: dict[str, str], attribute: str, value: str) -> Pair:
    """A fixed pair whose negative names a value of an attribute."""
    return Pair(
        prompt=prompt,
        negative=phrase(attribute, value),
        stated={name: (each,) for name, each in stated.items()},
        attribute=attribute,
        values=(value,),
        group=attribute,
        fixed=True,
    )


def _captions(count: int, seed: int) -> tuple[list[str], list[Stated]]:
    texts, stated = caption_set(count, seed, "partial")
    return texts, [{name: (value,) for name, value in each.items()} for each in stated]


def _left_open(stated: Stated) -> dict[str, dict[str, str]]:
    return {
        name: {value: phrase(name, value) for value in values}
        for name, values in ATTRIBUTES.items()
        if name not in stated
    }


SHAPES = World(
    student="models/snoopi-shapes-student.safetensors",
    teacher="models/snoopi-shapes-teacher.safetensors",
    read=seen,
    reader="pixel rules",
    captions=_captions,
    draw=lambda count, seed: render(sample_scenes(count, torch.Generator().manual_seed(seed))),
    open_prompts={sentence({name: value}): {name: (value,)} for name, values in ATTRIBUTES.items() for value in values},
    left_open=_left_open,
    group=lambda _, attribute: attribute,
    fixed=(
        pair("a red shape", {"colour": "red"}, "shape", "square"),
        pair("a green shape", {"colour": "green"}, "shape", "triangle"),
        pair("a ring", {"shape": "ring"}, "colour", "blue"),
        pair("a shape on the left", {"position": "left"}, "background", "white"),
    ),
)
