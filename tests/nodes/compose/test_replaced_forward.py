"""Nodes that put a forward of their own in place of a network's or a cross-attention's, some during a call.

For UNets; tests/nodes/families/test_replaced_forward.py has the same for transformers.
"""

from __future__ import annotations

from types import MethodType

import comfy.ldm.modules.attention as attention
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
from families.contract import EFFECT
from reference import Subtraction, relative_error
from replaced_forwards import cross_attentions, swapped
from unets import SIDE, noise

from snoopi_core.guidance.methods import make_method

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

OTHER, STRENGTH = 8, 0.3  # seed of another node's negative, and how much of its response it subtracts


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
def test_attentions_swapped_during_the_call_are_steered(cfg, cleaned):
    """With guidance, the positive's rows are the last, so only they have the other node's negative too."""
    theirs = Subtraction(prompt(OTHER)["context"], STRENGTH)
    guidance = {"negative": prompt(UNCONDITIONAL), "cfg": cfg} if cfg != 1.0 else {}

    def exact(*away):
        return subject().reference.x0(noise(), T, prompt(POSITIVE), [*away, theirs], **guidance)

    plain = sampled(another_negative(subject().patcher, cleaned), cfg=cfg)
    assert relative_error(plain, exact()) < GUIDED
    assert relative_error(exact(*subtractions()), exact()) > EFFECT
    for patcher in (
        steer(another_negative(subject().patcher, cleaned)),
        another_negative(steer(subject().patcher), cleaned),
    ):
        error = relative_error(sampled(patcher, cfg=cfg), exact(*subtractions()))
        assert_close_to_exact("attn2.forward swapped in a call (NAG)", error, GUIDED)


def test_with_a_mask(cleaned):
    mask = torch.zeros(SIDE, SIDE)
    mask[:, : SIDE // 2] = 1.0
    away = [
        Subtraction(prompt(3)["context"], 0.5, mask=mask[None]),
        Subtraction(prompt(OTHER)["context"], STRENGTH),
    ]
    expected = subject().reference.x0(noise(), T, prompt(POSITIVE), away)
    got = sampled(steer(another_negative(subject().patcher, cleaned), mask=mask))
    assert_close_to_exact("attn2.forward swapped in a call (NAG), with a mask", relative_error(got, expected))


def test_a_method_that_needs_the_prompts_keys(cleaned):
    patcher = steer(another_negative(subject().patcher, cleaned), method=make_method("VSF"))
    with pytest.raises(ValueError, match="VSF needs the prompt's keys and values, but another node has replaced"):
        sampled(patcher)


LAYER = "middle_block.1.transformer_blocks.0.attn2"


def with_forward(patcher, forward, name=LAYER):
    patcher = patcher.clone()
    layer = patcher.model.diffusion_model.get_submodule(name)
    patcher.add_object_patch(f"diffusion_model.{name}.forward", MethodType(forward, layer))
    return patcher


def halved(self, *args, **kwargs):
    return 0.5 * type(self).forward(self, *args, **kwargs)


@pytest.mark.parametrize("before", [True, False])
def test_a_forward_as_an_object_patch(before, cleaned):
    """It is used, and sees the steered response."""
    cleaned.append(subject().patcher.model.diffusion_model)
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


def test_a_forward_without_the_layers_projections_is_refused(cleaned):
    cleaned.append(subject().patcher.model.diffusion_model)
    with pytest.raises(ValueError, match=r"cannot steer middle\.0: another node has replaced its cross-attention"):
        sampled(steer(with_forward(subject().patcher, bypass)))
    elsewhere = with_forward(steer(subject().patcher, blocks="input, output"), bypass)
    assert not torch.equal(sampled(elsewhere), sampled(steer(subject().patcher, blocks="input, output")))


def test_a_forward_swapped_too_late_is_refused(cleaned):
    """In the block itself, where the host has already looked whether there is a patch."""
    network = subject().patcher.model.diffusion_model
    cleaned.append(network)
    layer = network.get_submodule(LAYER)

    def late(q, k, v, extra_options):
        if extra_options["block"] == ("middle", 0):
            layer.forward = MethodType(halved, layer)
        return q, k, v

    patcher = steer(subject().patcher)
    patcher.set_model_attn1_patch(late)
    with pytest.raises(ValueError, match=r"cannot steer middle\.0: another node replaces its cross-attention"):
        sampled(patcher)
