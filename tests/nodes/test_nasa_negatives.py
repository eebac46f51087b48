"""Negatives of several prompts, each with its own strength and range of steps."""

from __future__ import annotations

import nodes as host_nodes
import pytest
import torch
from figures import measured
from reference import Subtraction, relative_error
from unets import Case, case, conditioning, host_sample, noise

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

ALPHA, T, TOLERANCE = 0.5, 999, 2e-6


@pytest.fixture
def subject() -> Case:
    return case("sd15")


def sampled(subject, negative=None, *, window=None, **settings):
    patcher = subject.patcher
    if negative is not None:
        patcher = apply_nasa(patcher, negative, alpha=ALPHA, window=window or Window(), blocks="all")
    return host_sample(patcher, conditioning(subject.condition(1)), conditioning(subject.condition(2)), **settings)


def expected(subject, *shares):
    """x0 with the prompts of these seeds subtracted, each with its share of alpha."""
    subtractions = [
        Subtraction(subject.condition(seed, tokens)["context"], ALPHA * share) for seed, tokens, share in shares
    ]
    return subject.reference.x0(noise(), T, subject.condition(1), subtractions)


def test_combined_prompts_are_averaged(subject):
    combine = host_nodes.ConditioningCombine().combine
    [negative] = combine(conditioning(subject.condition(3)), conditioning(subject.condition(4, 154)))
    error = relative_error(sampled(subject, negative), expected(subject, (3, 77, 0.5), (4, 154, 0.5)))
    measured("negatives", "two combined prompts", "cfg 1", error, TOLERANCE)


def test_strengths_are_shares(subject):
    negative = conditioning(subject.condition(3), strength=3.0) + conditioning(subject.condition(4), strength=1.0)
    error = relative_error(sampled(subject, negative), expected(subject, (3, 77, 0.75), (4, 77, 0.25)))
    measured("negatives", "two combined prompts of strength 3 and 1", "cfg 1", error, TOLERANCE)


def test_a_prompt_of_strength_zero_is_ignored(subject):
    negative = conditioning(subject.condition(3)) + conditioning(subject.condition(4), strength=0.0)
    assert torch.equal(sampled(subject, negative), sampled(subject, conditioning(subject.condition(3))))


def ranged(subject, seed, start, end):
    return host_nodes.ConditioningSetTimestepRange().set_range(conditioning(subject.condition(seed)), start, end)[0]


def test_a_timestep_range_is_a_window(subject):
    negative = ranged(subject, 3, 0.0, 0.5)
    window = Window(start_percent=0.0, end_percent=0.5)
    plain = conditioning(subject.condition(3))
    assert torch.equal(sampled(subject, negative, steps=4), sampled(subject, plain, window=window, steps=4))


def test_consecutive_ranges(subject):
    """Each in its own half, at full strength, like two nodes with different windows."""
    negative = ranged(subject, 3, 0.0, 0.5) + ranged(subject, 4, 0.5, 1.0)
    patcher = subject.patcher
    for seed, start, end in ((3, 0.0, 0.5), (4, 0.5, 1.0)):
        window = Window(start_percent=start, end_percent=end)
        unwanted = conditioning(subject.condition(seed))
        patcher = apply_nasa(patcher, unwanted, alpha=ALPHA, window=window, blocks="all")
    two_nodes = host_sample(patcher, conditioning(subject.condition(1)), conditioning(subject.condition(2)), steps=4)
    assert torch.equal(sampled(subject, negative, steps=4), two_nodes)


def test_outside_its_range_nothing_changes(subject):
    assert torch.equal(sampled(subject, ranged(subject, 3, 0.5, 1.0)), sampled(subject))


def test_the_host_may_zero_a_negative(subject):
    """ConditioningZeroOut gives a prompt like any other; all its tokens are zero, and so are their values."""
    [zero] = host_nodes.ConditioningZeroOut().zero_out(conditioning(subject.condition(3)))
    got = sampled(subject, zero)
    context = torch.zeros_like(subject.condition(3)["context"])
    want = subject.reference.x0(noise(), T, subject.condition(1), [Subtraction(context, ALPHA)])
    assert relative_error(got, want) <= TOLERANCE
