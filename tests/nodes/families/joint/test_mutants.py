"""The comparisons of test_exact.py would see a wrong formula: each is far outside the bar. Those of networks without a
reference: test_identity.py."""

from __future__ import annotations

import pytest
from families.contract import steer, subtract
from families.joint import JOINT_CASES
from families.joint.formula import MUTANTS
from reference import relative_error

pytestmark = pytest.mark.host

BAR = 4e-6  # at cfg 4
IN_THE_GATE = "Qwen-Image"
ALL_AT_ONE_PLACE = {"Flux", "Chroma", "Krea 2", "SD3", "SD3.5 medium"}  # the last two have no positions at all


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize(
    "name", [n if n == IN_THE_GATE else pytest.param(n, marks=pytest.mark.full) for n in JOINT_CASES]
)
def test_a_wrong_formula_is_seen(name, mutant):
    subject = JOINT_CASES[name]()
    positive, other, negative = subject.condition(1), subject.condition(2), subject.condition(3)
    got = subject.sample(steer(subject.patcher, negative), positive, other, cfg=4.0)
    guidance = {"unconditional": other, "cfg": 4.0}
    right = subject.expected(positive, [subtract(negative)], **guidance)
    subject.reference.mutant = mutant
    if mutant == MUTANTS[-1]:
        guidance["unconditional_subtractions"] = [subtract(negative)]
    try:
        wrong = subject.expected(positive, [subtract(negative)], **guidance)
    finally:
        subject.reference.mutant = None
    assert relative_error(got, right) <= BAR
    if mutant == "the positive's positions" and name in ALL_AT_ONE_PLACE:
        assert relative_error(got, wrong) <= BAR
    else:
        assert relative_error(got, wrong) > 100 * BAR
