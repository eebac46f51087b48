"""The measures, with the renderer in place of a model."""

import math
from collections import Counter

import pytest

from experiments import removal
from experiments.shapes import measure, world
from training.prompts.shapes.scene import ATTRIBUTES, SHAPES, Scene, render

STATED = {"colour": "red"}


def scene(seed, **fixed):
    picks = {name: values[seed % len(values)] for name, values in ATTRIBUTES.items()}
    return Scene(**{**picks, **fixed}, dx=0.0, dy=0.0, radius=18.0)


def words(prompt):
    named = prompt.replace(",", " ").split()
    return {name: value for name, values in ATTRIBUTES.items() for value in values if value in named}


def generate(prompts, seeds, negative=None):
    """Draws the stated attributes; if no shape is stated, a triangle, unless a negative forbids it."""
    scenes = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        fixed = {"shape": "ring" if negative == "triangle" else "triangle", **words(prompt)}
        scenes.append(scene(seed, **fixed))
    return render(scenes)


def test_accuracy_of_a_perfect_and_a_wrong_model():
    captions, stated = measure.caption_set(60, 1, "partial")
    perfect = measure.accuracy(generate(captions, list(range(60))), stated)
    assert perfect.stated == perfect.valid == 1.0
    assert perfect.count == 60 and perfect.entropy["shape"] == 0.0
    wrong = measure.accuracy(render([scene(0, colour="blue")] * 4), [STATED] * 4)
    assert wrong.stated == 0.0 and wrong.valid == 1.0 and math.isnan(wrong.per_attribute["shape"])
    with pytest.raises(ValueError, match="available: full, partial"):
        measure.caption_set(1, 1, "some")


def test_modal_pairs_name_the_most_frequent_value():
    pairs = removal.modal_pairs(world.SHAPES, generate, per_group=2, count=6, seed=0)
    assert Counter(pair.attribute for pair in pairs) == dict.fromkeys(ATTRIBUTES, 2)
    shape = next(pair for pair in pairs if pair.attribute == "shape")
    assert (shape.values, shape.share, shape.negative) == (("triangle",), 1.0, "triangle")
    assert all(pair.attribute not in pair.stated for pair in pairs)


def test_removal():
    pairs = [world.pair("a red shape", STATED, "shape", "triangle")] * 2
    before = removal.removal_table(world.SHAPES, generate, pairs, steer=False, count=5)
    after = removal.removal_table(world.SHAPES, generate, pairs, count=5)
    assert removal.mean_removal(before).absent == 0.0 and removal.mean_removal(before).clean == 0.0
    assert removal.mean_removal(after) == removal.Removal(absent=1.0, kept=1.0, valid=1.0, clean=1.0)


def test_entropy():
    assert removal.entropy(["a"] * 8) == 0.0
    assert removal.entropy(list(SHAPES) * 2) == pytest.approx(2.0)
    within = measure.prompt_entropy(generate, [STATED, {"shape": "plus"}], count=4, seed=0)
    assert within["shape"] == 0.0  # always a triangle
    assert within["colour"] == pytest.approx(2.0)  # only the second prompt does not state it
