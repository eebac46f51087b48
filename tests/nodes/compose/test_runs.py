"""Repeated and interrupted sampling runs, and runs of clones, do not affect each other."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from composed import POSITIVE, assert_identical, prompt, sampled, steer, subject
from unets import conditioning, own_forwards

from snoopi_core.host.conditioning.window import Window

pytestmark = pytest.mark.host

SETTINGS = {"cfg": 2.0, "steps": 4}
OTHER = 8  # seed of another prompt


def run(patcher, positive: int = POSITIVE, **settings) -> torch.Tensor:
    return sampled(patcher, conditioning(prompt(positive)), **{**SETTINGS, **settings})


def test_queued_twice():
    steered = steer(subject().patcher)
    assert_identical("Queued twice", "the first run", run(steered), run(steered))


def test_nodes_built_again():
    """Another run of the graph creates new objects."""
    first = run(steer(subject().patcher))
    assert_identical("Queued twice, nodes run again", "the first run", run(steer(subject().patcher)), first)


def test_clones_of_clones():
    steered = steer(subject().patcher)
    chain = steered
    for _ in range(5):
        chain = chain.clone()
    assert_identical("Clone chain", "the first model", run(chain), run(steered))


def test_the_plain_model_afterwards():
    before = run(subject().patcher)
    assert not torch.equal(run(steer(subject().patcher)), before)
    assert_identical("Plain model after a steered run", "before", run(subject().patcher), before)


def test_two_prompts_alternating():
    """Both positive prompts on one model, and two negatives on two branches of it."""
    branches = [steer(subject().patcher), steer(subject().patcher, prompt(OTHER, 154), alpha=0.3)]
    alone = [[run(steer(subject().patcher)), run(steer(subject().patcher), OTHER)]]
    alone.append([run(branches[1].clone()), run(branches[1].clone(), OTHER)])
    for _ in range(2):
        for branch, results in zip(branches, alone, strict=True):
            for positive, expected in zip((POSITIVE, OTHER), results, strict=True):
                assert_identical("Prompts and branches by turns", "each alone", run(branch, positive), expected)


@pytest.mark.both_hosts
def test_batch_size_and_cfg_alternating():
    for settings in ({"rows": 3}, {"rows": 1}, {"cfg": 1.0}, {"size": (8, 16)}):
        fresh = run(steer(subject().patcher), **settings)
        steered = steer(subject().patcher)
        run(steered)
        assert_identical("Batch, size and cfg by turns", "each alone", run(steered, **settings), fresh)


def test_nodes_in_a_chain_in_either_order():
    """Equal up to rounding, since fp32 sums depend on their order."""
    first, second = {"alpha": 0.3}, {"unwanted": prompt(OTHER, 154), "alpha": 0.2}
    one, other = (
        run(steer(steer(subject().patcher, **a), **b), steps=1) for a, b in ((first, second), (second, first))
    )
    assert torch.allclose(one, other, rtol=0, atol=1e-5 * float(one.abs().max()))


def test_windows_that_touch():
    halves = steer(steer(subject().patcher, window=Window(end_percent=0.5)), window=Window(start_percent=0.5))
    assert_identical("Two windows that touch", "one over all steps", run(halves), run(steer(subject().patcher)))


class TestInterrupted:
    def check(self, what, stop, error):
        steered = steer(subject().patcher)
        plain, good = run(subject().patcher), run(steered)
        found = own_forwards(subject().patcher)
        with pytest.raises(error):
            stop(steered)
        assert own_forwards(subject().patcher) == found
        assert_identical(what, "before, steered", run(steered), good)
        assert_identical(what, "before, plain", run(subject().patcher), plain)

    def test_by_the_user(self):
        """By the host's button, which makes its layers raise at the next call."""

        def press(step, *rest):
            comfy.model_management.interrupt_current_processing(step == 1)

        self.check(
            "Interrupted",
            lambda steered: run(steered, callback=press),
            comfy.model_management.InterruptProcessingException,
        )

    def test_by_a_callback(self):
        def fail(step, *rest):
            if step == 1:
                raise RuntimeError("in mid-sampling")

        self.check("Exception in a callback", lambda steered: run(steered, callback=fail), RuntimeError)

    def test_in_the_middle_of_a_call(self):
        """Another patch fails at the tenth attention."""
        calls = 0

        def fail(q, k, v, extra_options):
            nonlocal calls
            if (calls := calls + 1) == 10:
                raise RuntimeError("in mid-call")
            return q, k, v

        def stop(steered):
            broken = steered.clone()
            broken.set_model_attn2_patch(fail)
            run(broken)

        self.check("Exception within the network", stop, RuntimeError)
