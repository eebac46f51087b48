"""The reader and the rule of validity, on drawings, spoilt drawings, and pictures that are none."""

import pytest
import torch
from PIL import Image

from training.evaluate.judges.avatars import judge
from training.evaluate.sets.pairs import Pair
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.rules import WEIGHTS, read
from training.prompts.avatars.scene import SIZE, complete, sample_scenes

PERSON = {
    "hair": "short",
    "hair colour": "black",
    "skin": "light",
    "clothes": "blue",
    "eyewear": "glasses",
    "headwear": "none",
    "facial hair": "none",
    "around": "none",
    "background": "green",
}


@pytest.fixture(scope="module")
def drawn():
    from training.prompts.avatars.draw import render

    scenes = sample_scenes(60, torch.Generator().manual_seed(7))
    return scenes, render(scenes)


def test_every_attribute_of_a_drawing_is_read_and_it_is_valid(drawn):
    scenes, images = drawn
    reading = read(images)
    right = [
        reading.value(row, name) == value for row, scene in enumerate(scenes) for name, value in scene.values.items()
    ]
    assert sum(right) / len(right) >= 0.99
    same = torch.tensor([found.values == scene.values for found, scene in zip(reading.scenes, scenes, strict=True)])
    assert reading.valid[same].all() and float(reading.mean_error[same].max()) == 0


def test_noise_blur_and_mixtures_are_not_valid(drawn):
    _, images = drawn
    mixed = (images + images.roll(1, dims=0)) / 2
    halves = torch.cat([images[:, :, :, :32], images.roll(1, dims=0)[:, :, :, 32:]], dim=3)
    for spoilt in (mixed, halves, torch.rand_like(images)):
        assert read(spoilt[:20]).valid.float().mean() <= 0.1


def test_what_a_picture_lacks_it_does_not_show(drawn):
    scenes, images = drawn
    row = next(n for n, scene in enumerate(scenes) if scene.subject == "planet")
    reading = read(images[row : row + 1])
    assert reading.value(0, "hair") is None and reading.shows(0, {SUBJECT: ("planet",)})
    assert not reading.shows(0, {"hair": ("long", "afro")})


def test_the_reader_is_small():
    assert WEIGHTS.stat().st_size <= 2e6


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=rf"\(B, 3, {SIZE}, {SIZE}\), got \(1, 3, 32, 32\)"):
        read(torch.zeros(1, 3, 32, 32))


def test_the_judge_tells_what_is_absent_kept_and_valid():
    from training.prompts.avatars.draw import draw

    pictures = [
        Image.fromarray(draw(complete("person", {**PERSON, "eyewear": each}))) for each in ("sunglasses", "none")
    ]
    with_glasses, without = judge(pictures, Pair(positive="a person with short hair", negative="glasses"))
    assert not with_glasses.absent and without.absent
    assert with_glasses.kept and without.kept and with_glasses.valid and without.valid
    (other,) = judge(pictures[:1], Pair(positive="a person with long hair", negative="a hat"))
    assert other.absent and not other.kept
    with pytest.raises(ValueError, match="knows no 'a banana'; it knows words such as glasses"):
        judge(pictures, Pair(positive="a person", negative="a banana"))
