"""NASA through the host's own sampling, against diffusers in fp64 with explicit softmax."""

from __future__ import annotations

import pytest
import torch
from figures import measured
from reference import Subtraction, relative_error
from unets import case, conditioning, host_sample, noise

from snoopi_core.guidance.methods import NASA
from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.families import unet
from snoopi_core.host.nasa import sampling_run as run
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

TOLERANCE = 2e-6
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
# Tokens of the prompts and of the negative.
LENGTHS = [(77, 77), pytest.param(77, 154, marks=pytest.mark.both_hosts), (154, 77), (154, 154)]


def steered_error(kind, prediction_type, *, cfg, rows=2, tokens=77, negative_tokens=77, alpha=ALPHA):
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


@pytest.mark.parametrize(("kind", "prediction_type"), MODELS)
@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(("tokens", "negative_tokens"), LENGTHS)
def test_matches_the_formula(kind, prediction_type, cfg, tokens, negative_tokens):
    error, effect = steered_error(kind, prediction_type, cfg=cfg, tokens=tokens, negative_tokens=negative_tokens)
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


def plus(monkeypatch, subject):
    monkeypatch.setitem(vars(NASA), "change", lambda z_pos, z_neg, share, alpha: alpha * z_neg)


def after_the_output_projection(monkeypatch, subject):
    """to_out(Z+) - alpha to_out(Z-) differs from to_out(Z+ - alpha Z-) by alpha times the bias, put back through W."""
    original = unet._SteeredAttention.__call__
    layers = unet.UNetFamily().layers(subject.patcher.model)

    def mutant(self, q, k, v, extra_options):
        projection = layers[self.address].transformer.attn2.to_out[0]
        shift = torch.linalg.solve(projection.weight.double(), projection.bias.double()).to(q)
        return original(self, q, k, v, extra_options) - ALPHA * shift

    monkeypatch.setattr(unet._SteeredAttention, "__call__", mutant)


def unconditional_rows_too(monkeypatch, subject):
    positive = run.PositiveChunks
    monkeypatch.setattr(run, "PositiveChunks", lambda **which: positive(**{**which, "numbers": frozenset({0, 1})}))


def alpha_on_both(monkeypatch, subject):
    monkeypatch.setitem(vars(NASA), "uses_prompt", True)
    monkeypatch.setitem(vars(NASA), "change", lambda z_pos, z_neg, share, alpha: -alpha * (z_pos + z_neg))


@pytest.mark.parametrize("mutant", [plus, after_the_output_projection, unconditional_rows_too, alpha_on_both])
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_comparison_sees_a_wrong_formula(kind, mutant, monkeypatch):
    mutant(monkeypatch, case(kind))
    error, _ = steered_error(kind, "epsilon", cfg=2.0)
    assert error > 100 * TOLERANCE


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_each_row_has_its_own_negative(kind):
    subject = case(kind)
    positive, unwanted = subject.condition(1), subject.condition(3, rows=2)
    steered = apply_nasa(subject.patcher, conditioning(unwanted), alpha=ALPHA, window=Window(), blocks="all")
    got = host_sample(steered, conditioning(positive), conditioning(positive), rows=2)
    expected = subject.reference.x0(noise(2), T, positive, [Subtraction(unwanted["context"], ALPHA)])
    assert relative_error(got, expected) <= TOLERANCE


def test_several_nodes_each_subtract():
    subject = case("sd15")
    positive, first, second = subject.condition(1), subject.condition(3, 77), subject.condition(4, 154)
    steered = subject.patcher
    for unwanted, alpha in ((first, 0.5), (second, 0.2)):
        steered = apply_nasa(steered, conditioning(unwanted), alpha=alpha, window=Window(), blocks="all")
    got = host_sample(steered, conditioning(positive), conditioning(subject.condition(2)), cfg=3.0)
    subtractions = [Subtraction(first["context"], 0.5), Subtraction(second["context"], 0.2)]
    expected = subject.reference.x0(noise(), T, positive, subtractions, negative=subject.condition(2), cfg=3.0)
    assert relative_error(got, expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("blocks", "layers"),
    [
        ("middle", ["mid_block"]),
        ("input.1", ["down_blocks.0.attentions.0"]),
        ("output.2-3, middle", ["up_blocks.1.attentions", "mid_block"]),
    ],
)
def test_blocks_select_layers(blocks, layers):
    subject = case("sd15")
    positive, unwanted = subject.condition(1), subject.condition(3)
    names = [name for name in subject.reference.cross_attention_names() if name.startswith(tuple(layers))]
    steered = apply_nasa(subject.patcher, conditioning(unwanted), alpha=ALPHA, window=Window(), blocks=blocks)
    got = host_sample(steered, conditioning(positive), conditioning(positive))
    expected = subject.reference.x0(noise(), T, positive, [Subtraction(unwanted["context"], ALPHA, names)])
    assert relative_error(got, expected) <= TOLERANCE
