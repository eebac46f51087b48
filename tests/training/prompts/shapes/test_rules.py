"""The pixel rules recognise what was drawn, and do not accept broken images as valid."""

import pytest
import torch

from training.prompts.shapes.rules import read
from training.prompts.shapes.scene import ATTRIBUTES, BACKGROUNDS, render, sample_scenes


@pytest.fixture(scope="module")
def drawn():
    scenes = sample_scenes(600, torch.Generator().manual_seed(7))
    return scenes, render(scenes)


def test_every_attribute_is_recognised(drawn):
    scenes, images = drawn
    reading = read(images)
    for name in ATTRIBUTES:
        right = sum(value == scene.value(name) for value, scene in zip(reading.values[name], scenes, strict=True))
        assert right / len(scenes) >= 0.99, name
    assert reading.valid.float().mean() >= 0.99


def test_noise_and_blur_do_not_change_the_result(drawn):
    scenes, images = drawn
    scenes, images = scenes[:100], images[:100]
    noisy = images + 0.03 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    for changed in (noisy, blurred):
        values = read(changed).values
        for name in ATTRIBUTES:
            assert sum(value == scene.value(name) for value, scene in zip(values[name], scenes, strict=True)) >= 99, (
                name
            )


def test_seeds_decide_the_scenes():
    first, second = (sample_scenes(20, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == second
    assert first != sample_scenes(20, torch.Generator().manual_seed(4))


def test_images_are_in_range(drawn):
    _, images = drawn
    assert images.shape[1:] == (3, 64, 64)
    assert images.min() >= 0 and images.max() <= 1


def test_broken_images_are_not_valid(drawn):
    _, images = drawn
    two_objects = torch.maximum(
        (images[:50] - images[:50, :, :1, :1]).abs(), (images[50:100] - images[50:100, :, :1, :1]).abs()
    )
    blends = 0.5 * images[:50] + 0.5 * images[50:100]
    empty = torch.tensor(BACKGROUNDS["gray"])[None, :, None, None].expand(4, 3, 64, 64)
    noise = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    half = images[:50].clone()
    half[:, :, :32] = half[:, :, :1, :1]
    uneven = images[:50].clone()
    uneven[:, :, :, 32:] = 1 - uneven[:, :, :, 32:]
    for name, broken in (
        ("blends", blends),
        ("two", two_objects),
        ("empty", empty),
        ("noise", noise),
        ("half", half),
        ("uneven", uneven),
    ):
        assert read(broken).valid.float().mean() <= 0.15, name


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 3, 64, 64\)"):
        read(torch.zeros(1, 3, 32, 32))
