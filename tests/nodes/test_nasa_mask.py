"""The mask of NASA Apply: where in the picture a negative acts."""

from __future__ import annotations

import pytest
import torch
from figures import measured
from reference import Subtraction, relative_error
from unets import SIDE, Case, case, conditioning, host_sample, noise

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

ALPHA, T, TOLERANCE = 0.5, 999, 2e-6


@pytest.fixture(params=["sd15", "sdxl"])
def subject(request) -> Case:
    return case(request.param)


def steer(patcher, subject, mask, *, seed=3, alpha=ALPHA):
    negative = conditioning(subject.condition(seed))
    return apply_nasa(patcher, negative, alpha=alpha, window=Window(), blocks="all", mask=mask)


def sampled(patcher, subject, positive=None, **settings):
    positive = positive or conditioning(subject.condition(1))
    return host_sample(patcher, positive, conditioning(subject.condition(2)), **settings)


def half(rows=1):
    """White on the left."""
    mask = torch.zeros(rows, SIDE, SIDE)
    mask[:, :, : SIDE // 2] = 1.0
    return mask


def random_mask(rows=1, side=SIDE, seed=5):
    return torch.rand(rows, side, side, generator=torch.Generator().manual_seed(seed))


def test_a_black_mask_returns_the_model(subject):
    assert steer(subject.patcher, subject, torch.zeros(64, 64)) is subject.patcher


def test_a_white_mask_equals_no_mask(subject):
    plain = sampled(steer(subject.patcher, subject, None), subject, rows=2, cfg=2.0)
    white = sampled(steer(subject.patcher, subject, torch.ones(1, 50, 30)), subject, rows=2, cfg=2.0)
    assert torch.equal(white, plain)


def test_black_rows_of_a_batch_stay_as_they_were(subject):
    mask = torch.stack([torch.ones(SIDE, SIDE), torch.zeros(SIDE, SIDE)])
    got = sampled(steer(subject.patcher, subject, mask), subject, rows=2)
    plain, steered = (
        sampled(patcher, subject, rows=2) for patcher in (subject.patcher, steer(subject.patcher, subject, None))
    )
    assert torch.equal(got[1], plain[1])
    assert torch.equal(got[0], steered[0])


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("half", half()),
        ("grey", random_mask()),
        ("one for each image", random_mask(2)),
        ("finer than the latent", random_mask(side=8 * SIDE)),
    ],
)
@pytest.mark.both_hosts
def test_matches_the_formula(subject, name, mask, cfg):
    got = sampled(steer(subject.patcher, subject, mask), subject, rows=2, cfg=cfg)
    subtraction = Subtraction(subject.condition(3)["context"], ALPHA, mask=mask)
    guidance = {"negative": subject.condition(2), "cfg": cfg} if cfg != 1.0 else {}
    expected = subject.reference.x0(noise(2), T, subject.condition(1), [subtraction], **guidance)
    everywhere = Subtraction(subject.condition(3)["context"], ALPHA)
    without = subject.reference.x0(noise(2), T, subject.condition(1), [everywhere], **guidance)
    assert relative_error(without, expected) > 1e-2, "the mask changes nothing, so the test would prove nothing"
    measured("masks", f"{name}, {subject.kind}", f"cfg {cfg:g}", relative_error(got, expected), TOLERANCE)


def test_several_nodes_have_their_own_masks(subject):
    left, right = half(), 1.0 - half()
    steered = steer(steer(subject.patcher, subject, left), subject, right, seed=4, alpha=0.3)
    got = sampled(steered, subject, rows=2)
    subtractions = [
        Subtraction(subject.condition(3)["context"], ALPHA, mask=left),
        Subtraction(subject.condition(4)["context"], 0.3, mask=right),
    ]
    expected = subject.reference.x0(noise(2), T, subject.condition(1), subtractions)
    measured("masks", f"two nodes, {subject.kind}", "cfg 1", relative_error(got, expected), TOLERANCE)


def test_two_halves_add_up_to_the_whole(subject):
    halves = steer(steer(subject.patcher, subject, half()), subject, 1.0 - half())
    whole = sampled(steer(subject.patcher, subject, None), subject)
    assert relative_error(sampled(halves, subject), whole) <= TOLERANCE


def test_an_area_of_the_positive_sees_its_part_of_the_mask(subject):
    """The host crops the latent to the area; the crop must use the same part of the mask."""
    mask = random_mask()
    right = (SIDE, SIDE // 2, 0, SIDE // 2)
    positive = conditioning(subject.condition(1), area=right, strength=1.0)
    got = sampled(steer(subject.patcher, subject, mask), subject, positive)[..., SIDE // 2 :]
    # The same area, of a picture that is masked with the same part everywhere.
    doubled = torch.cat([mask[:, :, SIDE // 2 :]] * 2, dim=-1)
    again = sampled(steer(subject.patcher, subject, doubled), subject, positive)[..., SIDE // 2 :]
    assert torch.equal(got, again)
    everywhere = sampled(steer(subject.patcher, subject, None), subject, positive)[..., SIDE // 2 :]
    assert relative_error(everywhere, got) > 1e-2
