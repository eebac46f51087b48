"""The comparisons of test_exact.py would see a wrong formula: each is far outside the bar."""

from __future__ import annotations

import pytest
from families.contract import steer, subtract
from families.joint import JOINT_CASES
from families.joint.formula import MUTANTS
from reference import relative_error

pytestmark = pytest.mark.host

BAR = 2e-6
IN_THE_GATE = "Qwen-Image"
INVISIBLE = {
    ("Flux", "the positive's positions"),  # all of its text is at 0
    ("SD3", "the positive's positions"),  # it has none
}


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize(
    "name",
    [
        n if n == IN_THE_GATE else pytest.param(n, marks=pytest.mark.full)
        for n in ("Flux", "SD3", "Qwen-Image", "Lumina 2")
    ],
)
def test_a_wrong_formula_is_seen(name, mutant):
    subject = JOINT_CASES[name]()
    positive, other, negative = subject.condition(1), subject.condition(2), subject.condition(3)
    got = subject.sample(steer(subject.patcher, negative), positive, other, cfg=2.0)
    guidance = {"unconditional": other, "cfg": 2.0}
    right = subject.expected(positive, [subtract(negative)], **guidance)
    subject.reference.mutant = mutant
    if mutant == MUTANTS[-1]:
        guidance["unconditional_subtractions"] = [subtract(negative)]
    try:
        wrong = subject.expected(positive, [subtract(negative)], **guidance)
    finally:
        subject.reference.mutant = None
    assert relative_error(got, right) <= BAR
    if (name, mutant) in INVISIBLE:
        assert relative_error(got, wrong) <= BAR
    else:
        assert relative_error(got, wrong) > 100 * BAR
