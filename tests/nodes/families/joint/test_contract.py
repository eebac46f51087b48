"""What every family has to pass, for networks of joint attention: all in the full run, test_exact.py in the gate."""

from __future__ import annotations

import pytest
from families.contract import BAR, FamilyContract, steer, subtract
from families.joint import JOINT_CASES
from reference import relative_error

pytestmark = [pytest.mark.host, pytest.mark.full]


class JointContract(FamilyContract):
    invisible = ("no masks", "after the projection")  # Z is linear in what the formula takes away

    @pytest.fixture
    def subject(self):
        if self.name not in JOINT_CASES:
            pytest.skip("not in this ComfyUI")
        return JOINT_CASES[self.name]()


class TestQwenImage(JointContract):
    name = "Qwen-Image"
    invisible = ("after the projection",)


class TestZImage(JointContract):
    name = "Z-Image"
    bar = 2e-6  # the plain model's own is 1e-6


class TestKrea2(JointContract):
    name = "Krea 2"


class TestFlux(JointContract):
    """Its blocks are of two kinds: double.0, double.1, single.0, single.1."""

    name = "Flux"

    @pytest.mark.parametrize(
        ("blocks", "indices"), [("single.0", [2]), ("double.1, single.1", [1, 3]), ("double", [0, 1]), ("all", None)]
    )
    def test_blocks_select_layers(self, subject, blocks, indices):
        positive, negative = subject.condition(1), subject.condition(3)
        got = subject.sample(steer(subject.patcher, negative, blocks=blocks), positive, positive)
        expected = subject.expected(positive, [subtract(negative, blocks=indices)])
        assert relative_error(got, expected) <= BAR

    def test_an_unknown_block_is_refused_with_a_list_of_known_ones(self, subject):
        with pytest.raises(ValueError, match=r"double\.0-1, single\.0-1"):
            steer(subject.patcher, subject.condition(3), blocks="block.0")

    test_observing_changes_nothing_and_gives_the_formulas_values = None  # names layers by their index alone
