"""PixArt-alpha with micro-conditioning, against diffusers' own network; test_contract_beside.py has the others."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from families import conditioning
from families.contract import FamilyContract, steer

pytestmark = pytest.mark.host


class TestPixArtAlpha1024(FamilyContract):
    name = "PixArt-alpha 1024"
    invisible = ("no masks",)  # the host has none here

    def test_without_sizes(self, subject):
        """The host then uses the size of the latent."""
        unsized = dataclasses.replace(
            subject, make_condition=lambda *arguments: {"context": subject.make_condition(*arguments)["context"]}
        )
        self.check(unsized, unsized.condition(3))

    def test_the_t5_mask_is_ignored_as_by_the_host(self, subject):
        """The host ignores the T5 mask: a masked positive equals an unmasked one, and so does a negative."""
        positive, negative = (subject.condition(seed) for seed in (1, 3))
        masked_positive, masked_negative = (subject.condition(seed, padding=9) for seed in (1, 3))
        assert "attention_mask" in conditioning(masked_negative)[0][1]
        plain = subject.sample(subject.patcher, positive, positive)
        assert torch.equal(plain, subject.sample(subject.patcher, masked_positive, positive))
        steered = subject.sample(steer(subject.patcher, negative), positive, positive)
        assert torch.equal(steered, subject.sample(steer(subject.patcher, masked_negative), masked_positive, positive))
