"""NASA in UNets of every published shape, against diffusers in fp64 with explicit softmax.

What is the same for every family is in families/test_unet.py.
"""

from __future__ import annotations

import pytest
from figures import measured
from reference import Subtraction, relative_error
from unets import case, conditioning, host_sample, noise

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

# At cfg 1; guidance multiplies rounding with everything else. Processors round differently: the largest, SD2.1 with
# v-prediction, has 0.8e-6 on one kind and 1.3e-6 on another.
BAR = 1.5e-6
NAMES = {
    ("sd15", "epsilon"): "UNet SD1.5",
    ("sd21", "epsilon"): "UNet SD2.1",
    ("sd21", "v_prediction"): "UNet SD2.1, v",
    ("sdxl", "epsilon"): "UNet SDXL",
    ("refiner", "epsilon"): "UNet SDXL refiner",
    ("ssd1b", "epsilon"): "UNet SSD-1B",
    ("vega", "epsilon"): "UNet Segmind Vega",
}
MODELS = list(NAMES)
ALPHA = 0.5
T = 999


def steered_error(kind, prediction_type, *, cfg, rows=2, tokens=77, negative_tokens=154, alpha=ALPHA):
    """Relative error of one step of the host's KSampler with NASA Apply, and how much NASA changed."""
    subject = case(kind, prediction_type)
    positive, unconditional = subject.condition(1, tokens), subject.condition(2, tokens)
    unwanted = subject.condition(3, negative_tokens)

    steered = apply_nasa(subject.patcher, conditioning(unwanted), alpha=alpha, window=Window(), blocks="all")
    got = host_sample(
        steered, conditioning(positive), conditioning(unconditional), cfg=cfg, rows=rows, size=subject.size
    )

    guidance = {"negative": unconditional, "cfg": cfg} if cfg != 1.0 else {}
    x = noise(rows, size=subject.size)
    subtraction = Subtraction(unwanted["context"], alpha)
    expected = subject.reference.x0(x, T, positive, [subtraction], **guidance)
    plain = subject.reference.x0(x, T, positive, **guidance)
    return relative_error(got, expected), relative_error(plain, expected)


@pytest.mark.both_hosts
@pytest.mark.parametrize(("kind", "prediction_type"), MODELS)
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_matches_the_formula(kind, prediction_type, cfg):
    error, effect = steered_error(kind, prediction_type, cfg=cfg)
    assert effect > 1e-2, "NASA changes nothing here, so the comparison would prove nothing"
    measured("families", NAMES[kind, prediction_type], f"relative error, cfg {cfg:g}", error, BAR * cfg)


@pytest.mark.both_hosts
@pytest.mark.parametrize(("kind", "prediction_type"), MODELS)
def test_the_plain_model_has_the_same_error(kind, prediction_type):
    """So the error is fp32 rounding of the network itself, not of the subtraction."""
    subject = case(kind, prediction_type)
    positive = subject.condition(1)
    got = host_sample(subject.patcher, conditioning(positive), conditioning(positive), rows=2, size=subject.size)
    error = relative_error(got, subject.reference.x0(noise(2, size=subject.size), T, positive))
    measured("families", NAMES[kind, prediction_type], "relative error of the plain model", error, BAR)
