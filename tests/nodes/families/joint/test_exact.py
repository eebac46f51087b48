"""NASA in networks of joint attention, against the formula written out in fp64."""

from __future__ import annotations

import pytest
from families.contract import steer, subtract
from families.joint import JOINT_CASES
from figures import measured
from reference import relative_error

pytestmark = pytest.mark.host

BAR = 2e-6
EFFECT = 1e-2
"""NASA has to change more than this, or a comparison would prove nothing."""


@pytest.mark.both_hosts
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.full) if n == "Flux 2" else n for n in JOINT_CASES])
def test_matches_the_formula(name):
    """Two pictures, cfg above 1, two negatives of other lengths than the prompt's."""
    subject = JOINT_CASES[name]()
    positive, other = subject.condition(1), subject.condition(2)
    first, second = subject.condition(3, subject.more, padding=4), subject.condition(4, subject.fewer)
    guidance = {"cfg": 2.0, "rows": subject.most_rows}
    plain = subject.sample(subject.patcher, positive, other, **guidance)
    guidance["unconditional"] = other
    plain_expected = subject.expected(positive, **guidance)
    measured("joint attention", name, "plain model", relative_error(plain, plain_expected), BAR)
    steered = steer(steer(subject.patcher, first), second, alpha=0.2)
    got = subject.sample(steered, positive, other, cfg=2.0, rows=subject.most_rows)
    expected = subject.expected(positive, [subtract(first), subtract(second, 0.2)], **guidance)
    assert relative_error(plain_expected, expected) > EFFECT
    measured("joint attention", name, "relative error", relative_error(got, expected), BAR)
