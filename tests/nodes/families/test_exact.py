"""Every network whose whole contract runs in the full run only: one exact comparison in the gate."""

from __future__ import annotations

import pytest
from families import BESIDE, case
from families.contract import BAR, steer, subtract
from figures import measured
from reference import relative_error

pytestmark = pytest.mark.host


@pytest.mark.both_hosts
@pytest.mark.parametrize("name", BESIDE)
def test_two_rows_with_a_longer_negative(name):
    """At cfg 1, and at cfg 2 with a negative prompt of another length, in two calls of the network."""
    subject = case(name)
    positive, other = subject.condition(1), subject.condition(2, subject.fewer)
    negative = subject.condition(3, subject.more)
    steered = steer(subject.patcher, negative)
    for cfg, bar in ((1.0, BAR), (2.0, 2 * BAR)):
        got = subject.sample(steered, positive, other, cfg=cfg, rows=2)
        guidance = {"cfg": cfg, "rows": 2, "unconditional": other if cfg != 1.0 else None}
        expected = subject.expected(positive, [subtract(negative)], **guidance)
        measured("families", name, "relative error", relative_error(got, expected), bar)
    plain = subject.sample(subject.patcher, positive, other, rows=2)
    error = relative_error(plain, subject.expected(positive, rows=2))
    measured("families", name, "plain model", error, BAR)
    assert relative_error(subject.expected(positive, [subtract(negative)], rows=2), plain) > 1e-2
