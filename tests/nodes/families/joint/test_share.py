"""The three ways to the negative's share of the attention: all give the same, and say which was used."""

from __future__ import annotations

import dataclasses
import logging
import sys

import comfy.ldm.modules.attention as attention
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from families.contract import steer, subtract
from families.joint import JOINT_CASES
from families.joint.networks import all_networks, network
from figures import measured
from reference import relative_error

from snoopi_core.host.families.joint import kernels, steered_block
from snoopi_core.host.nasa.apply import WRAPPER_KEY, NASAWrapper

pytestmark = pytest.mark.host

WAYS = ("lse", "column", "call")
BAR = 2e-6


@pytest.fixture
def pytorch_attention(monkeypatch):
    """As on GPUs; on CPUs the host takes another function."""
    for name, module in list(sys.modules.items()):
        if name.startswith("comfy.ldm"):
            for target in ("optimized_attention", "optimized_attention_masked"):
                if hasattr(module, target):
                    monkeypatch.setattr(module, target, attention.attention_pytorch)


def by(way, patcher):
    """The same steered model with one way only."""
    [wrapper] = patcher.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    other = NASAWrapper(wrapper.family, wrapper.steerings)
    other.attachment.ways = (way,)
    return with_wrapper(patcher, other)


def with_wrapper(patcher, wrapper):
    out = patcher.clone()
    out.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    out.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, wrapper)
    return out


@pytest.mark.both_hosts
@pytest.mark.parametrize(
    "name", ["SD3", pytest.param("Z-Image", marks=pytest.mark.full), pytest.param("Krea 2", marks=pytest.mark.full)]
)
def test_all_ways_match_the_formula_and_each_other(name, pytorch_attention, caplog):
    if name not in JOINT_CASES:
        pytest.skip("not in this ComfyUI")
    caplog.set_level(logging.INFO)
    subject = JOINT_CASES[name]()
    positive, first, second = subject.condition(1), subject.condition(3, 40), subject.condition(4, 7)
    steered = steer(steer(subject.patcher, first), second, alpha=0.2)
    expected = subject.expected(positive, [subtract(first), subtract(second, 0.2)], rows=2)
    got = {}
    for way in WAYS:
        caplog.clear()
        got[way] = subject.sample(by(way, steered), positive, positive, rows=2)
        assert f"share of the attention is computed by {way}" in caplog.text
        measured("joint attention", name, f"share by {way}", relative_error(got[way], expected), BAR)
    assert relative_error(got["lse"], got["call"]) <= 1e-6
    assert relative_error(got["column"], got["call"]) <= 1e-6


@pytest.mark.full
@pytest.mark.parametrize(("padding", "of_negative"), [(0, 5), (5, 0), (3, 5)])
def test_masks_take_one_more_call(padding, of_negative, pytorch_attention, caplog):
    """Of prompts padded to another length; the log says what was done."""
    caplog.set_level(logging.INFO)
    subject = JOINT_CASES["Qwen-Image"]()
    positive, negative = subject.condition(1, padding=padding), subject.condition(3, 40, padding=of_negative)
    got = subject.sample(steer(subject.patcher, negative), positive, positive, rows=2)
    assert "computed by call" in caplog.text
    assert relative_error(got, subject.expected(positive, [subtract(negative)], rows=2)) <= BAR


@pytest.mark.parametrize("way", ["lse", "call"])
@pytest.mark.parametrize("name", all_networks(in_the_gate={"Flux"}))
def test_idle_hooks_leave_the_model_bit_for_bit(name, way, pytorch_attention, monkeypatch):
    """At strength zero and under a black mask, not only when the node is left out: the layer's own attention is the
    same. So is the model outside the window."""
    subject, runs = network(name), []
    positive, other, negative = subject.condition(1), subject.unconditional(), subject.condition(3, 40)
    respond = steered_block.respond_to_negative
    monkeypatch.setattr(steered_block, "respond_to_negative", lambda *args: runs.append(0) or respond(*args))

    def sampled(patcher):
        runs.clear()
        return subject.sample(patcher, positive, other, cfg=4.0)

    plain, steered = sampled(subject.patcher), steer(subject.patcher, negative)
    [wrapper] = steered.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    idle = [{"alpha": 0.0}, {"mask": torch.zeros(1, *subject.shape[-2:])}]
    if subject.sound is not None:
        with pytest.raises(ValueError, match="makes sound"):
            steer(subject.patcher, negative, **idle.pop())
    for settings in idle:
        other_wrapper = NASAWrapper(wrapper.family, (dataclasses.replace(wrapper.steerings[0], **settings),))
        difference = float((sampled(by(way, with_wrapper(steered, other_wrapper))) - plain).abs().max())
        assert len(runs) == subject.joint_blocks
        measured("joint attention", name, f"idle by {way}, difference", difference, 0.0)
    # The one step is not in the last third of the schedule.
    assert torch.equal(sampled(by(way, steer(subject.patcher, negative, start=0.7))), plain) and not runs
    acting = sampled(by(way, steer(subject.patcher, negative, end=0.7)))
    assert len(runs) == subject.joint_blocks and not torch.equal(acting, plain)


def test_columns_change_the_last_digits(pytorch_attention):
    """So they are not used by default: exact, but not bit for bit."""
    subject = JOINT_CASES["Flux"]()
    positive = subject.condition(1)
    steered = steer(subject.patcher, subject.condition(3))
    [wrapper] = steered.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    idle = NASAWrapper(wrapper.family, (dataclasses.replace(wrapper.steerings[0], alpha=0.0),))
    got = subject.sample(by("column", with_wrapper(steered, idle)), positive, positive)
    plain = subject.sample(subject.patcher, positive, positive)
    print(f"largest difference {float((got - plain).abs().max()):.1e}")
    assert relative_error(got, plain) <= 1e-6


@pytest.mark.parametrize("way", ["column", "call"])
@pytest.mark.parametrize("name", ["OmniGen 2", "PixelDiT", "Lens"])
@pytest.mark.full
def test_layouts_of_other_networks(name, way):
    """Keys and values shared by several heads; results in heads; a mask in each call."""
    subject = network(name)
    positive, steered = subject.condition(1), steer(subject.patcher, subject.condition(3, 40))
    got, expected = (subject.sample(by(each, steered), positive, positive) for each in (way, "call"))
    assert relative_error(got, expected) <= 1e-6


def test_without_pytorchs_private_operators(pytorch_attention, monkeypatch, caplog):
    """A PyTorch that has moved them, or computes something else: another way is taken."""
    caplog.set_level(logging.INFO)

    def moved(*_):
        raise AttributeError("moved")

    def other(choice, q, k, v):
        z, lse = run(choice, q, k, v)
        return z, lse + 0.1

    def wrong_for_more_keys(choice, q, k, v):
        z, lse = run(choice, q, k, v)
        return z, lse + 0.1 * (k.shape[2] > q.shape[2])

    def wrong_for_this_width(choice, q, k, v):
        z, lse = run(choice, q, k, v)
        return z, lse + 0.1 * (q.shape[-1] == 16)

    run = kernels._run
    tried = [("SD3", each) for each in (moved, other, wrong_for_more_keys)] + [("Flux", wrong_for_this_width)]
    for name, replacement in tried:
        subject = JOINT_CASES[name]()
        positive, negative = subject.condition(1), subject.condition(3)
        drawn = []
        for each, way in ((run, "lse"), (replacement, "call")):
            caplog.clear()
            kernels._works.cache_clear()
            monkeypatch.setattr(kernels, "_run", each)
            drawn.append(subject.sample(steer(subject.patcher, negative), positive, positive))
            assert f"computed by {way}" in caplog.text
        assert relative_error(drawn[1], drawn[0]) <= 1e-6
    kernels._works.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_log_sum_exp_of_every_type(dtype):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 32, generator=generator).to(dtype) for n in (9, 17, 17))
    if not kernels.has_lse(q, k, v):
        pytest.skip("this PyTorch has no such kernel for the CPU")
    z, lse = kernels.attend_with_lse(q, k, v)
    assert torch.equal(z, torch.nn.functional.scaled_dot_product_attention(q, k, v))
    expected = (q.double() @ k.double().transpose(-1, -2) / 32**0.5).logsumexp(-1)
    assert (lse.double() - expected).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2)
