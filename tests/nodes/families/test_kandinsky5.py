"""Kandinsky 5: its text depends on the noise level, so that each step has another."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import pytest
import torch
from families import case, conditioning
from families.contract import BAR, EFFECT, steer, subtract
from families.steps import expected_euler
from figures import measured
from reference import relative_error

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]


def test_the_negative_is_prepared_in_each_step():
    subject, sigmas = case("Kandinsky 5 image"), (1.0, 0.5, 0.2, 0.0)
    positive, negative = subject.condition(1), subject.condition(3, subject.more)
    got = comfy.sample.sample_custom(
        steer(subject.patcher, negative), subject.noise(2), 1.0, comfy.samplers.ksampler("euler"),
        torch.tensor(sigmas), conditioning(positive), conditioning(positive), subject.latent(2), disable_pbar=True,
        seed=7,
    )  # fmt: skip
    expected = expected_euler([subject] * 3, sigmas, positive, [subtract(negative)], 2)
    assert relative_error(expected_euler([subject] * 3, sigmas, positive, [], 2), expected) > EFFECT
    measured("families", subject.name, "relative error", relative_error(got, expected), BAR)


def test_a_negative_without_a_pooled_embedding_is_refused():
    subject = case("Kandinsky 5 image")
    with pytest.raises(ValueError, match="pooled CLIP embedding"):
        steer(subject.patcher, {"context": subject.condition(3)["context"]})
