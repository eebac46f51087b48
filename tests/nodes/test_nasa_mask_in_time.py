"""The mask of NASA Apply if the host passes a part of the latent to the network, or a latent has frames."""

from __future__ import annotations

import dataclasses

import comfy.sample
import pytest
import torch
import unets
from comfy.context_windows import IndexListContextWindow
from divided import in_windows_of_a_batch
from families import case, conditioning
from families.contract import steer
from figures import measured
from host_nodes import run_node

from snoopi_core.host.conditioning.mask import window_part

pytestmark = pytest.mark.host

FRAMES = 8
HALF = [slice(0, FRAMES // 2), slice(FRAMES // 2, FRAMES)]


@pytest.fixture
def video():
    subject = case("Wan 2.1 T2V")
    channels, _, *size = subject.latent_shape
    return dataclasses.replace(subject, latent_shape=(channels, FRAMES, *size))


def first_half(subject):
    """White for the first half of the frames, (F, h, w)."""
    mask = torch.zeros(subject.latent_shape[1:])
    mask[HALF[0]] = 1.0
    return mask


def in_windows(patcher, length, *, dim, overlap=0):
    windowed = run_node(
        "nodes_context_windows.ContextWindowsManualNode", model=patcher, context_length=length, context_overlap=overlap,
        context_schedule="standard_static", context_stride=1, closed_loop=False, fuse_method="pyramid", dim=dim,
        freenoise=False,
    )  # fmt: skip
    windowed.model_options["context_handler"].causal_window_fix = False  # newer hosts', which ties windows together
    return windowed


def test_a_context_window_sees_its_own_frames(video):
    def sampled(patcher):
        return video.sample(in_windows(patcher, FRAMES // 2, dim=2), video.condition(1), video.condition(2), steps=2)

    negative = video.condition(3)
    got = sampled(steer(video.patcher, negative, mask=first_half(video)))
    plain, everywhere = sampled(video.patcher), sampled(steer(video.patcher, negative))
    assert torch.equal(got[:, :, HALF[0]], everywhere[:, :, HALF[0]])
    assert torch.equal(got[:, :, HALF[1]], plain[:, :, HALF[1]])
    assert not torch.equal(everywhere, plain)


def test_a_frame_that_the_host_puts_before_a_window_has_its_own_mask(video):
    patcher = in_windows(video.patcher, FRAMES // 2, dim=2)
    patcher.model_options["context_handler"].causal_window_fix = True
    mask = first_half(video)
    mask[FRAMES // 2 - 1] = 0.0  # the frame before the second window
    negative = video.condition(3)
    got, plain = (
        video.sample(each, video.condition(1), video.condition(2))
        for each in (steer(patcher, negative, mask=mask), patcher)
    )
    assert torch.equal(got[:, :, HALF[1]], plain[:, :, HALF[1]])
    assert not torch.equal(got[:, :, HALF[0]], plain[:, :, HALF[0]])


@pytest.mark.parametrize("dim", [0, 3])
def test_a_window_of_a_batch_or_of_a_side_sees_its_own_part(dim):
    subject = unets.case("sd15")
    rows = 4 if dim == 0 else 1  # the host cannot cut a side of several pictures
    mask = torch.zeros(rows, unets.SIDE, unets.SIDE)
    if dim == 0:
        mask[:2] = 1.0
    else:
        mask[:, :, : unets.SIDE // 2] = 1.0
    length = (4 if dim == 0 else unets.SIDE) // 2
    positive, negative = unets.conditioning(subject.condition(1)), subject.condition(3)

    def sampled(patcher):
        return unets.host_sample(in_windows(patcher, length, dim=dim), positive, positive, rows=rows)

    got = sampled(steer(subject.patcher, negative, mask=mask)).split(length, dim)
    plain = sampled(subject.patcher).split(length, dim)
    everywhere = sampled(steer(subject.patcher, negative)).split(length, dim)
    assert torch.equal(got[0], everywhere[0])
    assert torch.equal(got[1], plain[1])
    assert not torch.equal(everywhere[0], plain[0])


def test_guide_frames_in_a_window_are_refused():
    window = IndexListContextWindow([2, 3], dim=2, total_frames=4)
    with pytest.raises(ValueError, match="has 3 frames, expected 2"):
        window_part({"context_window": window}, (1, 16, 3, 6, 8))


IMAGES = 8


def animated(mask, *, tells: bool, unwanted=None):
    """A batch of 8 frames in windows of 4, as nodes for animated pictures cut it; with a mask, and without windows."""
    subject = unets.case("sd15")
    positive, negative = unets.conditioning(subject.condition(1)), unwanted or subject.condition(3)

    def sampled(patcher):
        return unets.host_sample(patcher, positive, unets.conditioning(subject.condition(2)), rows=IMAGES, cfg=2.0)

    steered = steer(subject.patcher, negative, mask=mask)
    return [
        sampled(in_windows_of_a_batch(steered, 4, tells=tells)),
        sampled(in_windows_of_a_batch(subject.patcher, 4)),
        sampled(in_windows_of_a_batch(steer(subject.patcher, subject.condition(3)), 4)),
    ]


@pytest.mark.parametrize("white", [slice(0, 4), slice(4, 8)], ids=["first half", "second half"])
def test_frames_of_another_nodes_windows_have_their_own_mask(white):
    mask = torch.zeros(IMAGES, unets.SIDE, unets.SIDE)
    mask[white] = 1.0
    got, plain, everywhere = animated(mask, tells=True)
    row = "context windows of another node, a mask for each frame"
    measured("composition", row, "difference", float((got[white] - everywhere[white]).abs().max()), 0.0)
    black = mask.flatten(1).amax(1) == 0
    measured("composition", row, "difference", float((got[black] - plain[black]).abs().max()), 0.0)
    assert not torch.equal(everywhere, plain)


def test_frames_of_another_nodes_windows_have_their_own_negative():
    subject = unets.case("sd15")
    several = {"context": torch.cat([subject.condition(seed)["context"] for seed in [4] * 4 + [3] * 4])}
    got, plain, everywhere = animated(None, tells=True, unwanted=several)
    assert torch.equal(got[4:], everywhere[4:])
    assert not torch.equal(got[:4], everywhere[:4])
    assert not torch.equal(got[:4], plain[:4])


def test_a_mask_for_each_frame_in_unknown_windows_is_refused():
    with pytest.raises(ValueError, match="gets 4 of the run's 8 frames or images, and nothing says which"):
        animated(torch.rand(IMAGES, unets.SIDE, unets.SIDE), tells=False)
    got, _, everywhere = animated(torch.ones(1, unets.SIDE, unets.SIDE), tells=False)
    assert torch.equal(got, everywhere)  # a mask of one picture needs no frame numbers


def test_an_area_in_time_sees_its_own_frames(video):
    """Of a positive: the second half of the frames, where the mask is black."""
    positive = run_node(
        "nodes_video_model.ConditioningSetAreaPercentageVideo", conditioning=conditioning(video.condition(1)),
        width=1.0, height=1.0, temporal=0.5, x=0.0, y=0.0, z=0.5, strength=1.0,
    )  # fmt: skip

    def sampled(patcher):
        return comfy.sample.sample(
            patcher, video.noise(), 1, 1.0, "lcm", "simple", positive, conditioning(video.condition(2)),
            video.latent(), seed=7, disable_pbar=True,
        )  # fmt: skip

    negative = video.condition(3)
    got, plain = sampled(steer(video.patcher, negative, mask=first_half(video))), sampled(video.patcher)
    assert torch.equal(got, plain)
    other = sampled(steer(video.patcher, negative, mask=1.0 - first_half(video)))
    assert torch.equal(other, sampled(steer(video.patcher, negative)))
    assert not torch.equal(other, plain)


@pytest.mark.parametrize("name", ["Wan 2.1 T2V", "Cosmos-Predict2", "Anima"])
def test_images_of_a_video_model_have_a_mask_each(name):
    """A latent of one frame is a picture, so several masks are those of the batch."""
    subject = case(name)
    channels, _, *size = subject.latent_shape
    subject = dataclasses.replace(subject, latent_shape=(channels, 1, *size))
    mask = torch.stack([torch.ones(size), torch.zeros(size)])
    negative = subject.condition(3)
    got, plain, everywhere = (
        subject.sample(patcher, subject.condition(1), subject.condition(2), rows=2)
        for patcher in (
            steer(subject.patcher, negative, mask=mask),
            subject.patcher,
            steer(subject.patcher, negative),
        )
    )
    assert torch.equal(got[0], everywhere[0])
    assert torch.equal(got[1], plain[1])
    assert not torch.equal(everywhere[0], plain[0])
