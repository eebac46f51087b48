"""What a text states is read back from it: of every caption, and of what people type."""

import pytest
import torch

from training.prompts.avatars.captions import SUBJECT, caption, full_caption
from training.prompts.avatars.parse import parse
from training.prompts.avatars.scene import sample_scenes


def test_every_caption_is_read_back():
    rng = torch.Generator().manual_seed(0)
    for scene in sample_scenes(300, rng):
        for text, stated in (caption(scene, rng), full_caption(scene, rng)):
            if "plant" in stated:  # a cactus is a plant, whether the tags say so or not
                stated = {SUBJECT: ("plant",), **stated}
            assert parse(text) == stated, text


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("a beard", {"facial hair": ("beard",)}),
        ("A Hat.", {"headwear": ("top hat", "party hat")}),
        ("a top hat", {"headwear": ("top hat",)}),
        ("horns, tall", {"shape": ("tall",), "headwear": ("horns",)}),
        ("a portrait", {SUBJECT: ("person",)}),
        ("red hair", {"hair colour": ("red",)}),
        ("long red hair", {"hair": ("long",), "hair colour": ("red",)}),
        ("the lumberjack with glasses", {SUBJECT: ("person",), "eyewear": ("glasses", "sunglasses")}),
        ("a planet with a beard", {SUBJECT: ("planet",), "facial hair": ("beard",)}),
        ("a woman", {SUBJECT: ("person",)}),
        ("sunglasses", {"eyewear": ("sunglasses",)}),
        ("a banana", {}),
        ("", {}),
    ],
)
def test_what_people_type_is_read(text, stated):
    assert parse(text) == stated
