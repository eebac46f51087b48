"""NASA in networks of joint attention, against the formula written out in fp64."""

from __future__ import annotations

import pytest
from families.contract import steer, subtract
from families.joint import JOINT_CASES
from figures import measured
from reference import relative_error

pytestmark = pytest.mark.host

BAR, GUIDED_BAR = 2e-6, 4e-6  # guidance multiplies rounding
EFFECT = 1e-2
"""NASA has to change more than this, or a comparison would prove nothing."""


@pytest.mark.both_hosts
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.full) if n == "Flux 2" else n for n in JOINT_CASES])
def test_matches_the_formula(name):
    """Two pictures, alone and at cfg 4, two negatives of other lengths than the prompt's."""
    subject = JOINT_CASES[name]()
    positive, other = subject.condition(1), subject.condition(2)
    first, second = subject.condition(3, subject.more, padding=4), subject.condition(4, subject.fewer)
    steered = steer(steer(subject.patcher, first), second, alpha=0.2)
    subtractions = [subtract(first), subtract(second, 0.2)]
    for cfg, bar, words in ((1.0, BAR, ""), (4.0, GUIDED_BAR, ", cfg 4")):
        guidance = {"cfg": cfg, "rows": subject.most_rows}
        plain, got = (subject.sample(patcher, positive, other, **guidance) for patcher in (subject.patcher, steered))
        guidance["unconditional"] = None if cfg == 1.0 else other
        plain_expected, expected = (subject.expected(positive, each, **guidance) for each in ((), subtractions))
        assert relative_error(plain_expected, expected) > EFFECT
        measured("joint attention", name, f"plain model{words}", relative_error(plain, plain_expected), bar)
        measured("joint attention", name, f"relative error{words}", relative_error(got, expected), bar)
