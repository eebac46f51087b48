"""Wan 2.1, text to video and image to video."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from families.contract import FamilyContract, steer

pytestmark = pytest.mark.host


class TestWanT2V(FamilyContract):
    name = "Wan 2.1 T2V"
    invisible = ("no masks",)  # the host has none here


class TestWanI2V(FamilyContract):
    name = "Wan 2.1 I2V"
    invisible = ("no masks",)  # the host has none here

    def test_the_image_tokens_come_from_the_positive(self, subject):
        """A negative is only text: its image, or a missing image, makes no difference."""
        positive, negative = subject.condition(1), subject.condition(3)
        another = {**subject.condition(4), "context": negative["context"]}
        results = [
            subject.sample(steer(subject.patcher, each), positive, positive)
            for each in (negative, another, {"context": negative["context"]})
        ]
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])

    @pytest.mark.parametrize("cfg", [1.0, 2.0])
    def test_without_a_clip_vision_image(self, subject, cfg):
        """It is optional in the host, which then takes the text for image tokens as well as for text."""
        with_image = subject.make_condition

        def without_image(*arguments):
            return {key: value for key, value in with_image(*arguments).items() if key != "clip_vision_output"}

        blind = dataclasses.replace(subject, make_condition=without_image)
        self.check(blind, blind.condition(3), cfg=cfg)
        self.check(blind, subject.condition(3), cfg=cfg)
