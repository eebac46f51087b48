"""The contract of every family, for further networks of each kind: in the full run. test_exact.py has all of them."""

from __future__ import annotations

import pytest
import torch
from families import VARIANTS, case
from families.contract import FamilyContract, steer

pytestmark = [pytest.mark.host, pytest.mark.full]


class _Sound(FamilyContract):
    """There is no picture for a mask."""

    test_a_mask_limits_it_to_a_part_of_the_picture = None
    test_a_mask_of_ones_changes_nothing = None

    def test_a_mask_is_refused(self, subject):
        with pytest.raises(ValueError, match=r"mask: .* Disconnect the mask"):
            steer(subject.patcher, subject.condition(3), mask=torch.ones(4, 4))


class TestPixArtAlpha512(FamilyContract):
    name = "PixArt-alpha 512"
    invisible = ("no masks",)  # the host has none here


class TestPixArtSigma(FamilyContract):
    name = "PixArt-sigma"
    invisible = ("no masks",)  # the host has none here


class TestHunyuanDiT11(FamilyContract):
    """It also takes the size and style of the image."""

    name = "HunyuanDiT 1.1"


class TestKandinsky5Image(FamilyContract):
    name = "Kandinsky 5 image"
    invisible = ("no masks",)


class TestStableAudio1(_Sound):
    name = "Stable Audio 1"
    invisible = ("no masks", "after the projection")  # the projection has no bias


class TestACEStep1(_Sound):
    name = "ACE-Step 1"
    bar = 2e-6  # the plain model's own error is larger at cfg 2
    invisible = ("no masks",)


class TestLTXVModulated(FamilyContract):
    name = "LTXV, modulated text"


class _Wan(FamilyContract):
    invisible = ("no masks",)

    @pytest.fixture
    def subject(self):
        if self.name not in VARIANTS:
            pytest.skip("not in this ComfyUI")
        return case(self.name)


class TestAnimate(_Wan):
    name = "Wan 2.2 Animate"


class TestCausal(_Wan):
    name = "Wan 2.1 Causal"
