"""Nodes that put a forward of their own in place of a network's or a cross-attention's, some during a call."""

from __future__ import annotations

import contextlib
from types import MethodType

import comfy.ldm.modules.attention as attention
import families
import pytest
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from composed import (
    GUIDED,
    POSITIVE,
    UNCONDITIONAL,
    T,
    assert_close_to_exact,
    prompt,
    sampled,
    steer,
    subject,
    subtractions,
)
from effort import some
from families import failing
from families.contract import BAR, EFFECT, subtract
from families.contract import steer as steer_transformer
from figures import measured
from reference import Subtraction, relative_error
from unets import SIDE, noise

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

OTHER, STRENGTH = 8, 0.3  # seed of another node's negative, and how much of its response it subtracts
TRANSFORMERS = ["PixArt-alpha 512", "Wan 2.1 T2V", "Wan 2.1 I2V", "HunyuanDiT 1.2", "LTXV", "Cosmos-Predict2", "Anima"]


@contextlib.contextmanager
def swapped(modules, forward):
    """Another forward for these modules; afterwards the former one, which leaves it on the instance."""
    before = [module.forward for module in modules]
    for module in modules:
        module.forward = MethodType(forward, module)
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.forward = own


@pytest.fixture(autouse=True)
def as_before():
    """Other tests look at the modules of these models."""
    networks = []
    yield networks
    for network in networks:
        for module in network.modules():
            vars(module).pop("forward", None)


def cross_attentions(network):
    return [module for name, module in network.named_modules() if name.endswith(("attn2", "cross_attn"))]


# UNets


def another_negative(patcher, seen):
    """As packs with a negative of their own: more rows of text, and attentions that subtract the response to them."""
    network, text = patcher.model.diffusion_model, prompt(OTHER)["context"]
    seen.append(network)

    def attend(self, x, context=None, value=None, mask=None, transformer_options={}):  # noqa: B006 - the host's
        more = context.shape[0] - x.shape[0]
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        z = attention.optimized_attention(q, k[:-more], v[:-more], self.heads).clone()
        z[-more:] -= STRENGTH * attention.optimized_attention(q[-more:], k[-more:], v[-more:], self.heads)
        return self.to_out(z)

    def forward(self, x, timesteps=None, context=None, y=None, control=None, transformer_options=None, **more):
        context = torch.cat([context, text.to(context)])
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        with swapped(cross_attentions(self), attend):
            return executor.execute(x, timesteps, context, y, control, transformer_options, **more)

    patcher = patcher.clone()
    patcher.add_object_patch("diffusion_model.forward", MethodType(forward, network))
    return patcher


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_attentions_swapped_during_the_call_are_steered(cfg, as_before):
    """With guidance, the positive's rows are the last, so only they have the other node's negative too."""
    theirs = Subtraction(prompt(OTHER)["context"], STRENGTH)
    guidance = {"negative": prompt(UNCONDITIONAL), "cfg": cfg} if cfg != 1.0 else {}

    def exact(*away):
        return subject().reference.x0(noise(), T, prompt(POSITIVE), [*away, theirs], **guidance)

    plain = sampled(another_negative(subject().patcher, as_before), cfg=cfg)
    assert relative_error(plain, exact()) < GUIDED
    assert relative_error(exact(*subtractions()), exact()) > EFFECT
    for patcher in (
        steer(another_negative(subject().patcher, as_before)),
        another_negative(steer(subject().patcher), as_before),
    ):
        error = relative_error(sampled(patcher, cfg=cfg), exact(*subtractions()))
        assert_close_to_exact("attn2.forward swapped in a call (NAG)", error, GUIDED)


def test_with_a_mask(as_before):
    mask = torch.zeros(SIDE, SIDE)
    mask[:, : SIDE // 2] = 1.0
    away = [
        Subtraction(prompt(3)["context"], 0.5, mask=mask[None]),
        Subtraction(prompt(OTHER)["context"], STRENGTH),
    ]
    expected = subject().reference.x0(noise(), T, prompt(POSITIVE), away)
    got = sampled(steer(another_negative(subject().patcher, as_before), mask=mask))
    assert_close_to_exact("attn2.forward swapped in a call (NAG), with a mask", relative_error(got, expected))


LAYER = "middle_block.1.transformer_blocks.0.attn2"


def with_forward(patcher, forward, name=LAYER):
    patcher = patcher.clone()
    layer = patcher.model.diffusion_model.get_submodule(name)
    patcher.add_object_patch(f"diffusion_model.{name}.forward", MethodType(forward, layer))
    return patcher


def halved(self, *args, **kwargs):
    return 0.5 * type(self).forward(self, *args, **kwargs)


@pytest.mark.parametrize("before", [True, False])
def test_a_forward_as_an_object_patch(before, as_before):
    """It is used, and sees the steered response."""
    as_before.append(subject().patcher.model.diffusion_model)
    plain = subject().patcher
    got = sampled(steer(with_forward(plain, halved)) if before else with_forward(steer(plain), halved))
    assert relative_error(got, sampled(steer(plain))) > 1e-4

    reference = subject().reference
    out = reference.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0]
    kept = [weight.clone() for weight in out.parameters()]
    try:
        for weight in out.parameters():
            weight.mul_(0.5)
        expected = reference.x0(noise(), T, prompt(POSITIVE), subtractions())
    finally:
        for weight, value in zip(out.parameters(), kept, strict=True):
            weight.copy_(value)
    assert_close_to_exact("attn2.forward as an object patch", relative_error(got, expected))


def bypass(self, x, *args, **kwargs):
    return x


def test_a_forward_without_the_layers_projections_is_refused(as_before):
    as_before.append(subject().patcher.model.diffusion_model)
    with pytest.raises(ValueError, match=r"cannot steer middle\.0: another node has replaced its cross-attention"):
        sampled(steer(with_forward(subject().patcher, bypass)))
    elsewhere = with_forward(steer(subject().patcher, blocks="input, output"), bypass)
    assert not torch.equal(sampled(elsewhere), sampled(steer(subject().patcher, blocks="input, output")))


def test_a_forward_swapped_too_late_is_refused(as_before):
    """In the block itself, where the host has already looked whether there is a patch."""
    network = subject().patcher.model.diffusion_model
    as_before.append(network)
    layer = network.get_submodule(LAYER)

    def late(q, k, v, extra_options):
        if extra_options["block"] == ("middle", 0):
            layer.forward = MethodType(halved, layer)
        return q, k, v

    patcher = steer(subject().patcher)
    patcher.set_model_attn1_patch(late)
    with pytest.raises(ValueError, match=r"cannot steer middle\.0: another node replaces its cross-attention"):
        sampled(patcher)


# Transformers


def swapping(patcher, forward, seen):
    """Like `another_negative`: the network's forward swaps those of the cross-attentions."""
    network = patcher.model.diffusion_model
    seen.append(network)

    def run(self, *args, **kwargs):
        with swapped(cross_attentions(self), forward):
            return type(self).forward(self, *args, **kwargs)

    patcher = patcher.clone()
    patcher.add_object_patch("diffusion_model.forward", MethodType(run, network))
    return patcher


@contextlib.contextmanager
def halved_projections(case):
    """The reference with half of each cross-attention's output."""
    names = ("o", "proj", "out_proj", "output_proj")
    layers = [each.layer for each in case.reference.attentions]
    outs = [
        layer.to_out[0] if hasattr(layer, "to_out") else next(getattr(layer, n) for n in names if hasattr(layer, n))
        for layer in layers
    ]
    kept = [[weight.clone() for weight in out.parameters()] for out in outs]
    with torch.no_grad():
        for out in outs:
            for weight in out.parameters():
                weight.mul_(0.5)
        try:
            yield
        finally:
            for out, values in zip(outs, kept, strict=True):
                for weight, value in zip(out.parameters(), values, strict=True):
                    weight.copy_(value)


def half_of_each(self, *args, **kwargs):
    out = type(self).forward(self, *args, **kwargs)
    return 0.5 * out if isinstance(out, torch.Tensor) else (0.5 * out[0], *out[1:])


@pytest.mark.parametrize("name", some(TRANSFORMERS, 3))
def test_attentions_of_a_transformer_swapped_during_the_call(name, as_before):
    case = families.case(name)
    positive, other, negative = (case.condition(seed) for seed in (1, 2, 3))
    with halved_projections(case):
        expected = case.expected(positive, [subtract(negative)], unconditional=other, cfg=2.0, rows=2)
        unsteered = case.expected(positive, unconditional=other, cfg=2.0, rows=2)
    assert relative_error(unsteered, expected) > EFFECT
    for patcher in (
        steer_transformer(swapping(case.patcher, half_of_each, as_before), negative),
        swapping(steer_transformer(case.patcher, negative), half_of_each, as_before),
    ):
        got = case.sample(patcher, positive, other, cfg=2.0, rows=2)
        measured("families", name, "cross-attention swapped in a call", relative_error(got, expected), BAR)


@pytest.mark.parametrize("name", some(TRANSFORMERS, 2))
def test_one_without_the_layers_projections_is_refused(name, as_before):
    def bypassing(self, x, *args, **kwargs):
        return (x,) if name.startswith("HunyuanDiT") else x

    case = families.case(name)
    steered = steer_transformer(swapping(case.patcher, bypassing, as_before), case.condition(3))
    with pytest.raises(ValueError, match=r"cannot steer block\.\d: another node has replaced its cross-attention"):
        case.sample(steered, case.condition(1), case.condition(2))


# The run of a transformer up to its first block, in which the negative is prepared


def counting(patcher, seen):
    """As packs that skip steps: around each call another forward of the network, which counts, and reads options."""
    network = patcher.model.diffusion_model
    seen.append(network)
    name = "forward_orig" if hasattr(network, "forward_orig") else "forward"
    calls = []

    def forward(self, *args, transformer_options=None, **kwargs):
        calls.append(len(transformer_options["cond_or_uncond"]) * transformer_options["threshold"])
        return getattr(type(self), name)(self, *args, transformer_options=transformer_options, **kwargs)

    def wrapper(apply_model, arguments):
        before = vars(network).get(name)
        setattr(network, name, MethodType(forward, network))
        try:
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])
        finally:
            vars(network).pop(name)
            vars(network).update({} if before is None else {name: before})

    patcher = patcher.clone()
    patcher.model_options["transformer_options"]["threshold"] = 1
    patcher.set_model_unet_function_wrapper(wrapper)
    return patcher, calls


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "name", some(["Wan 2.1 T2V", "PixArt-alpha 512", "LTXV", "Cosmos-Predict2", "HunyuanDiT 1.2"], 2)
)
def test_a_node_that_counts_calls_counts_those_of_the_sampler(name, before, as_before):
    case = families.case(name)
    positive, other, negative = (case.condition(seed) for seed in (1, 2, 3))
    steered = steer_transformer(case.patcher, negative)
    expected = case.sample(steered, positive, other, steps=3)
    if before:
        patcher, calls = counting(case.patcher, as_before)
        patcher = steer_transformer(patcher, negative)
    else:
        patcher, calls = counting(steered, as_before)
    got = case.sample(patcher, positive, other, steps=3)
    measured("families", name, "forward replaced (TeaCache), difference", float((got - expected).abs().max()), 0.0)
    assert calls == [1, 1, 1]


def test_what_fails_before_the_first_block_is_named():
    case = families.case("Wan 2.1 T2V")
    steered = steer_transformer(case.patcher, case.condition(3))
    network = case.patcher.model.diffusion_model
    with (
        failing(network.text_embedding, TypeError("no text")),
        pytest.raises(RuntimeError, match=r"cannot prepare the negative.*WanModel failed.*\(TypeError: no text\)"),
    ):
        case.sample(steered, case.condition(1), case.condition(2))
