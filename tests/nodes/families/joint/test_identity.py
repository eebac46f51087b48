"""Every class of joint attention: a negative that is the prompt itself takes the prompt's part out, exactly.

See tests/support/families/joint/identity.py. Negatives of other lengths are compared in test_exact.py.
"""

from __future__ import annotations

import pytest
from families.contract import steer
from families.joint import JOINT_CASES
from families.joint.identity import WithoutPrompt
from families.joint.networks import NETWORKS
from figures import measured
from reference import relative_error

pytestmark = pytest.mark.host

ALPHA = 0.5
BAR = 2e-6
EFFECT = 1e-3


@pytest.mark.both_hosts
@pytest.mark.parametrize(
    "name",
    # The others are compared with the whole formula in the gate.
    [pytest.param(n, marks=pytest.mark.full) if n in {*JOINT_CASES} - {"Flux 2"} else n for n in NETWORKS],
)
def test_the_prompt_as_negative(name):
    subject = NETWORKS[name]
    if not subject.exists:
        pytest.skip("not in this ComfyUI")
    positive = subject.condition(1)
    tokens = subject.text(positive["context"].shape[1])
    override = WithoutPrompt(
        ALPHA, tokens, subject.image or subject.grid, picture=slice(0, subject.grid), image_first=subject.image_first
    )
    plain = subject.patcher.clone()
    plain.model_options["transformer_options"]["optimized_attention_override"] = override
    expected = subject.sample(plain, positive, positive)
    assert override.calls == subject.joint_blocks * subject.steps
    before = subject.sample(subject.patcher, positive, positive)
    assert relative_error(before, expected) > EFFECT
    got = subject.sample(steer(subject.patcher, positive, alpha=ALPHA), positive, positive)
    measured("joint attention", name, "the prompt as negative", relative_error(got, expected), BAR)
