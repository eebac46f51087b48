"""Every network whose whole contract runs in the full run only: one exact comparison in the gate."""

from __future__ import annotations

import pytest
from effort import some
from families import BESIDE, VARIANTS, case
from families.contract import BAR, EFFECT, steer, subtract
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


# Whose contract, with masks, is not tested as a whole.
PICTURES = ["LTX-2", "LTX-2.3", "Kandinsky 5 video", *VARIANTS]
# What adds tokens with no place in the picture (test_wan_variants.py: then a mask is refused).
REFERENCES = ("reference_latents", "reference_motion", "pose_video_latent", "ref_mask_28ch", "driving_mask_28ch")


@pytest.mark.both_hosts
@pytest.mark.parametrize("name", some(PICTURES, 5))
def test_in_half_of_the_picture(name):
    subject = case(name)
    others = () if name == "Wan 2.2 Animate" else REFERENCES  # its pose is added to the picture's tokens
    positive, other, negative = (
        {key: value for key, value in subject.condition(seed).items() if key not in others} for seed in (1, 2, 3)
    )
    mask, tokens = subject.half()
    blocks, only = ("video", {"blocks": ["video.0", "video.1"]}) if name.startswith("LTX-2") else ("all", {})
    steered = steer(subject.patcher, negative, mask=mask, blocks=blocks)
    for cfg, bar in ((1.0, BAR), (2.0, 2 * BAR)):
        guidance = {"cfg": cfg, "rows": 2, "unconditional": other if cfg != 1.0 else None}
        got = subject.sample(steered, positive, other, cfg=cfg, rows=2)
        expected = subject.expected(positive, [subtract(negative, image_tokens=tokens, **only)], **guidance)
        measured("masks", f"half, {name}", f"cfg {cfg:g}", relative_error(got, expected), bar)
    everywhere = subject.expected(positive, [subtract(negative, **only)], **guidance)
    assert relative_error(everywhere, expected) > EFFECT
