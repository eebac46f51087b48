"""Captions are true, may omit attributes, and use the same words for an attribute everywhere."""

import pytest
import torch

from training.prompts.shapes.captions import full_caption, partial_caption, phrase, sentence, training_caption
from training.prompts.shapes.scene import ATTRIBUTES, sample_scenes


def test_captions_are_true():
    generator = torch.Generator().manual_seed(0)
    for scene in sample_scenes(300, generator):
        caption, stated = partial_caption(scene, generator)
        assert caption
        assert all(scene.value(name) == value for name, value in stated.items())
        words = caption.replace(",", " ").split()
        for name, values in ATTRIBUTES.items():
            named = [value for value in values if value in words]
            assert named == ([stated[name]] if name in stated else []), caption


def test_full_captions_state_everything():
    scene = sample_scenes(1, torch.Generator().manual_seed(0))[0]
    caption, stated = full_caption(scene)
    assert set(stated) == set(ATTRIBUTES)
    assert all(value in caption for value in stated.values())


def test_one_training_caption_in_ten_is_empty_and_every_attribute_is_dropped_at_times():
    generator = torch.Generator().manual_seed(1)
    scenes = sample_scenes(2000, generator)
    empty = sum(training_caption(scene, generator) == "" for scene in scenes) / len(scenes)
    assert 0.07 < empty < 0.13
    stated = [partial_caption(scene, generator)[1] for scene in scenes]
    for name in ATTRIBUTES:
        dropped = sum(name not in each for each in stated) / len(stated)
        assert 0.3 < dropped < 0.5, name


def test_wording():
    assert sentence({}) == "a shape"
    assert (
        sentence({"colour": "red", "shape": "ring", "position": "left", "background": "white"})
        == "a red ring on the left, white background"
    )
    assert phrase("background", "white") == "white background"
    assert phrase("shape", "plus") == "plus"
    with pytest.raises(ValueError, match="available: red"):
        phrase("colour", "mauve")
