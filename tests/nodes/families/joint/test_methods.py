"""Every method of NASA Apply in networks of joint attention, against its formula in fp64."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from families.contract import steer, subtract
from families.joint import JOINT_CASES
from families.joint.formula import MUTANTS_OF_METHODS
from families.joint.identity import without_prompt
from families.joint.networks import all_networks, network
from figures import measured
from reference import relative_error
from written_out import NAG_BLEND, NAG_TAU, VSF_BETA

from snoopi_core.guidance.methods import METHOD_NAMES, make_method
from snoopi_core.host.nasa.apply import WRAPPER_KEY, NASAWrapper

from .test_share import by, pytorch_attention, with_wrapper

pytestmark = pytest.mark.host
__all__ = ["pytorch_attention"]

BAR = 2e-6
EFFECT = 1e-2
STRENGTHS = {"NASA": 0.5, "NAG": 3.0, "VSF": 0.8, "orthogonal": 0.5}
OTHERS = METHOD_NAMES[1:]


def in_the_gate(names, chosen):
    return [name if name in chosen else pytest.param(name, marks=pytest.mark.full) for name in names]


def steered_by(method, patcher, condition, **more):
    settings = make_method(method, nag_tau=NAG_TAU, nag_blend=NAG_BLEND, vsf_beta=VSF_BETA)
    return steer(patcher, condition, **{"alpha": STRENGTHS[method], "method": settings, **more})


def away(method, condition, **more):
    return subtract(condition, STRENGTHS[method], method=method, **more)


def joint_case(name):
    if name not in JOINT_CASES:
        pytest.skip("not in this ComfyUI")
    return JOINT_CASES[name]()


@pytest.mark.both_hosts
@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("name", in_the_gate(JOINT_CASES, {"Flux", "SD3", "Qwen-Image", "Lumina 2"}))
def test_matches_the_formula(name, method):
    """With padding, and with a second negative by NASA: the changes by both are added."""
    subject = JOINT_CASES[name]()
    positive = subject.condition(1, padding=3)
    first, second = subject.condition(3, subject.more, padding=4), subject.condition(4, subject.fewer)
    steered = steered_by("NASA", steered_by(method, subject.patcher, first), second)
    got = subject.sample(steered, positive, positive)
    alone = subject.sample(steered_by("NASA", subject.patcher, second), positive, positive)
    assert relative_error(alone, got) > EFFECT
    expected = subject.expected(positive, [away(method, first), away("NASA", second)])
    measured("methods", name, f"{method}, relative error", relative_error(got, expected), BAR)


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("name", in_the_gate(["Qwen-Image", "Flux", "Z-Image", "Krea 2"], {"Qwen-Image"}))
def test_in_a_part_of_the_picture_and_of_the_network(name, method):
    """Two pictures at cfg 4: the unconditional rows are not steered."""
    subject = joint_case(name)
    positive, other, negative = subject.condition(1), subject.condition(2), subject.condition(3)
    mask, tokens = subject.half()
    blocks = "double.1, single.0" if name == "Flux" else "block.1, block.2"
    steered = steered_by(method, subject.patcher, negative, mask=mask, blocks=blocks)
    got = subject.sample(steered, positive, other, cfg=4.0, rows=2)
    several = [away(method, negative, image_tokens=tokens, blocks=[1, 2])]
    expected = subject.expected(positive, several, unconditional=other, cfg=4.0, rows=2)
    assert relative_error(got, expected) <= 2 * BAR  # guidance multiplies rounding


@pytest.mark.parametrize(("method", "mutant"), [(m, each) for m in OTHERS for each in MUTANTS_OF_METHODS[m]])
@pytest.mark.parametrize("name", in_the_gate(["SD3", "Flux", "Qwen-Image", "Lumina 2"], {"SD3"}))
def test_a_wrong_formula_is_seen(name, method, mutant):
    subject = JOINT_CASES[name]()
    positive, negative = subject.condition(1), subject.condition(3)
    got = subject.sample(steered_by(method, subject.patcher, negative), positive, positive)
    subject.reference.mutant = mutant
    try:
        wrong = subject.expected(positive, [away(method, negative)])
    finally:
        subject.reference.mutant = None
    assert relative_error(got, wrong) > 100 * BAR


@pytest.mark.parametrize(
    ("method", "way"),
    [("VSF", "lse"), *(pytest.param("VSF", way, marks=pytest.mark.full) for way in ("column", "call"))]
    + [
        pytest.param(m, way, marks=pytest.mark.full) for m in ("NAG", "orthogonal") for way in ("lse", "column", "call")
    ],
)
def test_with_every_way_to_the_share(method, way, pytorch_attention, caplog):
    """NAG needs none. VSF has no `column`."""
    caplog.set_level(logging.INFO)
    subject = JOINT_CASES["SD3"]()
    positive, negative = subject.condition(1), subject.condition(3, 40)
    got = subject.sample(by(way, steered_by(method, subject.patcher, negative)), positive, positive, rows=2)
    used = "call" if (method, way) == ("VSF", "column") else way
    assert (f"computed by {used}" in caplog.text) == (method != "NAG")
    expected = subject.expected(positive, [away(method, negative)], rows=2)
    measured("methods", "SD3", f"{method} by {way}", relative_error(got, expected), BAR)


@pytest.mark.parametrize("method", OTHERS)
def test_neutral_settings(method):
    """Bit for bit, also where the hooks are installed: outside a mask."""
    subject = JOINT_CASES["Flux"]()
    positive, negative = subject.condition(1), subject.condition(3)
    assert steered_by(method, subject.patcher, negative, alpha=0.0) is subject.patcher
    outside = steered_by(method, subject.patcher, negative, start=0.5)
    [wrapper] = steered_by(method, subject.patcher, negative).get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    black = dataclasses.replace(wrapper.steerings[0], mask=torch.zeros(1, 12, 16))
    masked = with_wrapper(outside, NASAWrapper(wrapper.family, (black,)))
    plain = subject.sample(subject.patcher, positive, positive)
    for patcher in (outside, masked):
        assert torch.equal(subject.sample(patcher, positive, positive), plain)


@pytest.mark.parametrize("method", ["NAG", "VSF"])
@pytest.mark.parametrize("name", all_networks(in_the_gate={"OmniGen 2"}))
def test_the_prompt_as_negative(name, method):
    """In every class: NAG then changes nothing, and VSF lets the prompt compete with itself. The orthogonal method
    has NASA's response (test_identity.py)."""
    subject = network(name)
    positive, negative, chosen = subject.condition(1), subject.condition(3), make_method(method)
    got, different = (
        subject.sample(steer(subject.patcher, each, alpha=0.5, method=chosen), positive, positive)
        for each in (positive, negative)
    )
    expected = plain = subject.sample(subject.patcher, positive, positive)
    if method == "VSF":
        expected = without_prompt(subject, positive, 0.5, twice=True)
    assert relative_error(plain, different) > EFFECT / 10
    measured("methods", name, f"{method}, the prompt as negative", relative_error(got, expected), BAR)
