"""Nodes that put a forward of their own in place of a transformer's or a cross-attention's, some during a call."""

from __future__ import annotations

import contextlib
from types import MethodType

import comfy.ldm.modules.attention as attention
import comfy.model_management as host
import families
import pytest
import torch
from effort import some
from families import failing
from families.contract import BAR, EFFECT, steer, subtract
from figures import measured
from reference import relative_error
from replaced_forwards import cross_attentions, swapped

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

TRANSFORMERS = ["PixArt-alpha 512", "Wan 2.1 T2V", "Wan 2.1 I2V", "HunyuanDiT 1.2", "LTXV", "Cosmos-Predict2", "Anima"]


def swapping(patcher, forward, seen):
    """As packs with a negative of their own: the network's forward swaps those of the cross-attentions."""
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
def test_attentions_of_a_transformer_swapped_during_the_call(name, cleaned):
    case = families.case(name)
    positive, other, negative = (case.condition(seed) for seed in (1, 2, 3))
    with halved_projections(case):
        expected = case.expected(positive, [subtract(negative)], unconditional=other, cfg=2.0, rows=2)
        unsteered = case.expected(positive, unconditional=other, cfg=2.0, rows=2)
    assert relative_error(unsteered, expected) > EFFECT
    for patcher in (
        steer(swapping(case.patcher, half_of_each, cleaned), negative),
        swapping(steer(case.patcher, negative), half_of_each, cleaned),
    ):
        got = case.sample(patcher, positive, other, cfg=2.0, rows=2)
        measured("families", name, "cross-attention swapped in a call", relative_error(got, expected), BAR)


def test_another_nodes_negative_with_rows_of_its_own(cleaned):
    """As NAG packs do it: the network gets more rows of text than of the picture."""
    case = families.case("Wan 2.1 T2V")
    positive, negative, theirs = (case.condition(seed) for seed in (1, 3, 8))

    def attend(self, x, context, **kwargs):
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        z, z_theirs = (
            attention.optimized_attention(q, k[part], v[part], heads=self.num_heads)
            for part in (slice(1), slice(1, None))
        )
        return self.o(z - 0.3 * z_theirs)

    def run(self, x, timestep, context, **kwargs):
        with swapped(cross_attentions(self), attend):
            return type(self).forward(self, x, timestep, torch.cat([context, theirs["context"]]), **kwargs)

    network = case.patcher.model.diffusion_model
    cleaned.append(network)
    steered = steer(case.patcher, negative)
    steered.add_object_patch("diffusion_model.forward", MethodType(run, network))
    got = case.sample(steered, positive, positive)
    both = [subtract(theirs, 0.3), subtract(negative)]
    assert relative_error(case.expected(positive, both[:1]), case.expected(positive, both)) > EFFECT
    error = relative_error(got, case.expected(positive, both))
    measured("families", case.name, "cross-attention swapped in a call", error, BAR)


@pytest.mark.parametrize("name", some(TRANSFORMERS, 2))
def test_one_without_the_layers_projections_is_refused(name, cleaned):
    def bypassing(self, x, *args, **kwargs):
        return (x,) if name.startswith("HunyuanDiT") else x

    case = families.case(name)
    steered = steer(swapping(case.patcher, bypassing, cleaned), case.condition(3))
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
    # Without PixArt, whose network gets no options from the host.
    "name",
    some(["Wan 2.1 T2V", "LTXV", "Cosmos-Predict2", "HunyuanDiT 1.2"], 2),
)
def test_a_node_that_counts_calls_counts_those_of_the_sampler(name, before, cleaned):
    case = families.case(name)
    positive, other, negative = (case.condition(seed) for seed in (1, 2, 3))
    steered = steer(case.patcher, negative)
    expected = case.sample(steered, positive, other, steps=3)
    if before:
        patcher, calls = counting(case.patcher, cleaned)
        patcher = steer(patcher, negative)
    else:
        patcher, calls = counting(steered, cleaned)
    got = case.sample(patcher, positive, other, steps=3)
    measured("families", name, "forward replaced (TeaCache), difference", float((got - expected).abs().max()), 0.0)
    assert calls == [1, 1, 1]


def test_what_fails_before_the_first_block_is_named():
    """But an interrupt, and a lack of memory, which the host answers by unloading models, are passed on."""
    case = families.case("Wan 2.1 T2V")
    steered = steer(case.patcher, case.condition(3))
    network = case.patcher.model.diffusion_model
    with (
        failing(network.text_embedding, TypeError("no text")),
        pytest.raises(RuntimeError, match=r"cannot prepare the negative.*WanModel failed.*\(TypeError: no text\)"),
    ):
        case.sample(steered, case.condition(1), case.condition(2))
    passed_on = [host.InterruptProcessingException(), torch.OutOfMemoryError()]
    if hasattr(host, "is_oom"):
        passed_on.append(host.ACCELERATOR_ERROR("CUDA error: out of memory"))
    for error in passed_on:
        with failing(network.text_embedding, error), pytest.raises(type(error)):
            case.sample(steered, case.condition(1), case.condition(2))
