"""Patches of the same cross-attentions that NASA Apply steers, before and after it."""

from __future__ import annotations

import copy

import comfy.ldm.modules.attention as attention
import pytest
import torch
from composed import POSITIVE, T, assert_close_to_exact, assert_identical, prompt, sampled, steer, subject, subtractions
from reference import Condition, Reference, Subtraction, relative_error
from unets import noise, random_unet

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

OTHER = 8  # seed of another prompt
LAYER = "input_blocks.1.1.transformer_blocks.0.attn2"
LAYER_IN_DIFFUSERS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
# One cross-attention: its address in the host, its module's name in the host, and its name in diffusers.
PLACES = {
    ("input", 1): (LAYER, "down_blocks.0."),
    ("input", 1, 0): (LAYER, "down_blocks.0."),
    ("output", 3): ("output_blocks.3.1.transformer_blocks.0.attn2", "up_blocks.1.attentions.1."),
}


def in_both_orders(what: str, patch) -> torch.Tensor:
    """`patch` changes a patcher in place."""
    before, after = subject().patcher.clone(), steer(subject().patcher)
    patch(before), patch(after)
    got = sampled(steer(before))
    assert_identical(what, "the other order", got, sampled(after))
    return got


def exact(more: list[Subtraction], positive: Condition | None = None, reference: Reference | None = None):
    reference = reference or subject().reference
    return reference.x0(noise(), T, positive or prompt(POSITIVE), [*subtractions(), *more])


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_replaced_attention(place):
    """Like image-prompt adapters, which add their own attention to the text's."""
    image = prompt(9)["context"]
    name, blocks = PLACES[place]
    layer = subject().patcher.model.diffusion_model.get_submodule(name)

    def adapter(q, k, v, options):
        out = attention.optimized_attention(q, k, v, options["n_heads"])
        return out + 0.7 * attention.optimized_attention(q, layer.to_k(image), layer.to_v(image), options["n_heads"])

    got = in_both_orders("attn2 replaced (IPAdapter)", lambda patcher: patcher.set_model_attn2_replace(adapter, *place))
    names = [name for name in subject().reference.cross_attention_names() if name.startswith(blocks)]
    assert_close_to_exact("attn2 replaced (IPAdapter)", relative_error(got, exact([Subtraction(image, -0.7, names)])))


def test_a_patched_context():
    """A patch may replace the text by one of another length; NASA still uses its own negative."""
    other = prompt(OTHER, tokens=100)

    def swap(n, context, value, options):
        return n, other["context"].expand(n.shape[0], -1, -1), other["context"].expand(n.shape[0], -1, -1)

    got = in_both_orders("attn2 patched, another text", lambda patcher: patcher.set_model_attn2_patch(swap))
    assert_close_to_exact("attn2 patched, another text", relative_error(got, exact([], positive=other)))


def test_a_patched_output():
    """The patch gets the layer's steered output, after the output projection."""

    def halve(n, options):
        return n * 0.5

    got = in_both_orders("attn2 output patched", lambda patcher: patcher.set_model_attn2_output_patch(halve))
    unet = random_unet("sd15")
    for name, weight in unet.named_parameters():
        if ".attn2.to_out." in name:
            weight.mul_(0.5)
    assert_close_to_exact("attn2 output patched", relative_error(got, exact([], reference=Reference(unet, "epsilon"))))


def test_a_layer_replaced_for_the_run():
    layer = copy.deepcopy(subject().patcher.model.diffusion_model.get_submodule(LAYER)).requires_grad_(False)
    layer.to_v.weight.mul_(1.5)
    name = f"diffusion_model.{LAYER}"
    got = in_both_orders("attn2 as an object patch", lambda patcher: patcher.add_object_patch(name, layer))
    unet = random_unet("sd15")
    unet.get_submodule(LAYER_IN_DIFFUSERS).to_v.weight.mul_(1.5)
    assert_close_to_exact(
        "attn2 as an object patch", relative_error(got, exact([], reference=Reference(unet, "epsilon")))
    )


def test_an_override_sees_every_attention():
    def counting(calls):
        def override(function, *args, **kwargs):
            calls.append(kwargs["transformer_options"]["block"])
            return function(*args, **kwargs)

        return override

    counts = []
    for patcher in (subject().patcher, steer(subject().patcher)):
        calls, clone = [], patcher.clone()
        clone.model_options["transformer_options"]["optimized_attention_override"] = counting(calls)
        assert_identical("optimized_attention_override", "no override", sampled(clone), sampled(patcher))
        counts.append(len(calls))
    assert counts[1] - counts[0] == len(subject().reference.cross_attention_names())
