"""Negatives of several prompts, each with its own strength and range of steps."""

from __future__ import annotations

import families
import nodes as host_nodes
import pytest
import torch
from families.contract import steer as steer_transformer
from figures import measured
from reference import Subtraction, relative_error
from unets import Case, case, conditioning, host_sample, noise

from snoopi_core.guidance.methods import make_method
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


class TestZeros:
    """From ConditioningZeroOut. Networks whose projections have biases respond to it."""

    WARNING = "NASA Apply does nothing: the negative is all zeros (ConditioningZeroOut)"

    def test_a_unet_does_not_respond(self, subject, caplog):
        [zero] = host_nodes.ConditioningZeroOut().zero_out(conditioning(subject.condition(3)))
        context = torch.zeros_like(subject.condition(3)["context"])
        want = subject.reference.x0(noise(), T, subject.condition(1), [Subtraction(context, ALPHA)])
        got = sampled(subject, zero)
        assert relative_error(got, want) <= TOLERANCE
        assert torch.equal(got, sampled(subject)) and caplog.text.count(self.WARNING) == 1

    @pytest.mark.parametrize(("name", "changes"), [("NAG", True), ("VSF", True), ("orthogonal", False)])
    def test_other_methods(self, subject, name, changes, caplog):
        """NAG and VSF compare both responses, or share the attention, so zeros have an effect."""
        [zero] = host_nodes.ConditioningZeroOut().zero_out(conditioning(subject.condition(3)))
        settings = {"alpha": 2.0, "window": Window(), "blocks": "all", "method": make_method(name)}
        steered = apply_nasa(subject.patcher, zero, **settings)
        prompts = conditioning(subject.condition(1)), conditioning(subject.condition(2))
        assert torch.equal(host_sample(steered, *prompts), sampled(subject)) != changes
        assert ("does nothing: the negative is all zeros" in caplog.text) != changes

    def test_combined_with_another_it_weakens_it(self, subject, caplog):
        [zero] = host_nodes.ConditioningZeroOut().zero_out(conditioning(subject.condition(4)))
        got = sampled(subject, conditioning(subject.condition(3)) + zero)
        assert relative_error(got, expected(subject, (3, 77, 0.5))) <= TOLERANCE
        assert "1 of 2 negative prompts have no effect: all zeros (ConditioningZeroOut)" in caplog.text
        assert self.WARNING not in caplog.text

    @pytest.mark.parametrize(("name", "responds"), [("Cosmos-Predict2", False), ("PixArt-alpha 512", True)])
    @pytest.mark.parametrize("steps", [1, 2])
    def test_a_transformer_is_measured(self, name, responds, steps, caplog):
        model = families.case(name)
        positive, negative = model.condition(1), model.condition(3)
        negative = {**negative, "context": torch.zeros_like(negative["context"])}
        got = model.sample(steer_transformer(model.patcher, negative), positive, positive, steps=steps)
        plain = model.sample(model.patcher, positive, positive, steps=steps)
        assert torch.equal(got, plain) != responds
        assert caplog.text.count(self.WARNING) == (not responds)
        if steps == 1:
            exact = model.expected(positive, [families.Subtraction(condition=negative, alpha=ALPHA)])
            assert relative_error(got, exact) <= TOLERANCE


def test_a_mask_that_is_black_in_the_pictures_of_a_run(subject, caplog):
    """The second of two masks, whose picture is not made."""
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    negative = conditioning(subject.condition(3))
    steered = apply_nasa(subject.patcher, negative, alpha=ALPHA, window=Window(), blocks="all", mask=masks)
    prompts = conditioning(subject.condition(1)), conditioning(subject.condition(2))
    assert torch.equal(host_sample(steered, *prompts, steps=2), host_sample(subject.patcher, *prompts, steps=2))
    assert caplog.text.count("NASA Apply does nothing: the mask is black in every picture of this run") == 1
    caplog.clear()
    host_sample(steered, *prompts, rows=2)
    assert "does nothing" not in caplog.text
