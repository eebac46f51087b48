"""Negatives of several prompts in joint attention, each in its own steps (ConditioningSetTimestepRange)."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import nodes as host_nodes
import pytest
import torch
from families.base import conditioning
from families.contract import ALPHA, EFFECT, steer
from families.joint import JOINT_CASES
from families.steps import sample_euler
from figures import measured
from reference import relative_error

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

BAR = 2e-6


@pytest.mark.both_hosts
@pytest.mark.parametrize("name", ["Qwen-Image", pytest.param("Lumina 2", marks=pytest.mark.full)])
def test_each_prompt_acts_in_its_own_steps(name):
    """One in the first half; in the second two of other lengths, of strength 3 and 1. Like a sampler of its own for
    each step, with a node of its own for each prompt."""
    subject = JOINT_CASES[name]()
    positive, early = subject.condition(1), subject.condition(3)
    late, later = subject.condition(4, subject.more), subject.condition(5, subject.fewer)

    def ranged(prompt, start, end, strength=1.0):
        prompts = conditioning(prompt, strength=strength)
        return host_nodes.ConditioningSetTimestepRange().set_range(prompts, start, end)[0]

    negative = ranged(early, 0.0, 0.5) + ranged(late, 0.5, 1.0, 3.0) + ranged(later, 0.5, 1.0)
    scheduled = apply_nasa(subject.patcher, negative, alpha=ALPHA, window=Window(), blocks="all")
    sampling = subject.patcher.model.model_sampling
    sigmas = [float(sampling.sigma_max), float(sampling.percent_to_sigma(0.7)), 0.0]
    got = comfy.sample.sample_custom(
        scheduled, subject.noise(2), 1.0, comfy.samplers.ksampler("euler"), torch.tensor(sigmas),
        conditioning(positive), conditioning(positive), subject.latent(2), disable_pbar=True, seed=7,
    )  # fmt: skip
    first = steer(subject.patcher, early)
    second = steer(steer(subject.patcher, late, alpha=0.75 * ALPHA), later, alpha=0.25 * ALPHA)
    expected = sample_euler(subject, [first, second], sigmas, positive, 2)
    for wrong in ([subject.patcher, second], [first, subject.patcher], [first, first], [second, second]):
        assert relative_error(sample_euler(subject, wrong, sigmas, positive, 2), expected) > EFFECT
    measured("joint attention", name, "scheduled negatives", relative_error(got, expected), BAR)
