"""NASA in joint attention beside reference pictures, ControlNet, overrides of the attention and replaced blocks.

Exact by the prompt as negative: the same other nodes are in the run that gives the expected result.
"""

from __future__ import annotations

import comfy.samplers
import pytest
import torch
from comfy.controlnet import ControlBase
from families.base import conditioning
from families.contract import find_patches, steer
from families.joint.identity import with_override, without_prompt
from families.joint.networks import network
from figures import measured
from reference import relative_error

from snoopi_core.guidance.methods import make_method
from snoopi_core.host.nasa.alpha import auto_alpha
from snoopi_core.host.sweep import sweep

pytestmark = pytest.mark.host

ALPHA = 0.5
BAR = 2e-6
EFFECT = 1e-3


def check(what, subject, name, positive, *, patcher=None, inner=None, image=None, start=0, skipped=0, **settings):
    """By the override; `image`, `start`: see without_prompt."""
    base = patcher or subject.patcher
    steered_base = base if inner is None else with_override(base, inner)
    want = without_prompt(
        subject, positive, ALPHA, image=image, start=start, patcher=base, inner=inner, skipped=skipped, **settings
    )
    plain = subject.sample(steered_base, positive, positive, **settings)
    assert relative_error(plain, want) > EFFECT
    got = subject.sample(steer(steered_base, positive, alpha=ALPHA), positive, positive, **settings)
    measured("joint attention", name, what, relative_error(got, want), BAR)
    return got


# Reference pictures: the picture's own tokens are steered, wherever they are among those of the image.
REFERENCES = {
    "Flux": ({}, 24, 0),
    "Flux 2": ({"reference_latents_method": "index_timestep_zero"}, 24, 0),
    "Qwen-Image": ({"reference_latents_method": "index_timestep_zero"}, 24, 0),
    "Krea 2": ({"reference_latents_method": "index"}, 24, 0),
    "Mage-Flow": ({}, 24, 0),
    "JoyImage": ({}, 24, 0),
    "OmniGen 2": ({}, 24, 24),
    "Boogu-Image": ({}, 24, 24),
    "HunyuanVideo": ({}, 24, 24),
    "MiniMax H3": ({}, 24, 24),
}


@pytest.mark.parametrize(
    "name", [n if n in ("Qwen-Image", "OmniGen 2") else pytest.param(n, marks=pytest.mark.full) for n in REFERENCES]
)
def test_only_the_pictures_own_tokens_are_steered(name):
    subject, (settings, tokens, start) = network(name), REFERENCES[name]
    shape = (*subject.shape[:-1], subject.shape[-1] // 2)
    if name == "MiniMax H3":  # a first frame, between the text and the sound
        shape = (subject.shape[0], 1, *subject.shape[2:])
    reference = torch.randn(1, *shape, generator=torch.Generator().manual_seed(9))
    settings = settings | {
        "HunyuanVideo": {"ref_latent": reference},
        "MiniMax H3": {"minimax_keyframes": [{"resolved_frame_index": 0, "latent": reference}]},
    }.get(name, {"reference_latents": [reference]})
    positive = subject.condition(1)
    got = check("with a reference", subject, name, positive, image=subject.grid + tokens, start=start, **settings)
    steered = steer(subject.patcher, positive, alpha=ALPHA)
    assert relative_error(got, subject.sample(steered, positive, positive)) > EFFECT
    # At cfg 4, both prompts have it, as in workflows for edits; a picture is linear in what the network returns.
    other = {**subject.unconditional(), **settings}
    unguided = subject.sample(subject.patcher, other, other)
    guided = subject.sample(steered, {**positive, **settings}, other, cfg=4.0)
    assert relative_error(guided, unguided + 4.0 * (got - unguided)) <= 2 * BAR


@pytest.mark.full
def test_a_first_frame_with_a_time_of_its_own():
    """Its tokens, and the text's, have other modulations."""
    subject = network("HunyuanVideo")
    check("with a first frame", subject, "HunyuanVideo", subject.condition(1), guiding_frame_index=0)


def test_reference_pictures_of_z_image_are_refused():
    """They bring text of their own."""
    subject = network("Z-Image")
    positive = subject.condition(1)
    reference = torch.randn(1, *subject.shape)
    with pytest.raises(ValueError, match="reference pictures"):
        subject.sample(steer(subject.patcher, positive), positive, positive, reference_latents=[reference])


@pytest.mark.full
def test_the_reference_picture_of_hidream_e1_is_refused():
    """Its tokens stand between those of the picture's rows."""
    subject = network("HiDream-I1")
    positive = subject.condition(1)
    reference = torch.randn(1, *subject.shape)
    with pytest.raises(ValueError, match="reference picture"):
        subject.sample(steer(subject.patcher, positive), positive, positive, concat_latent_image=reference)


class Control(ControlBase):
    """What a ControlNet adds, by its place."""

    def __init__(self, place, shape):
        super().__init__()
        residual = torch.randn(shape, generator=torch.Generator().manual_seed(5))
        self.residual = {"input": [], "output": [], place: [residual] * 2}

    def get_control(self, *_):
        return self.residual


@pytest.mark.parametrize(
    ("name", "place", "width"),
    [("SD3.5 medium", "output", 192), pytest.param("Flux", "input", 64, marks=pytest.mark.full)],
)
def test_with_a_controlnet(name, place, width):
    subject = network(name)
    control = Control(place, (2, subject.grid, width))
    got = check("with a ControlNet", subject, name, subject.condition(1), control=control)
    positive = subject.condition(1)
    assert relative_error(got, subject.sample(steer(subject.patcher, positive), positive, positive)) > EFFECT


def sharper(function, q, k, v, *args, **kwargs):
    """Another node's attention."""
    return function(q * 1.2, k, v, *args, **kwargs)


@pytest.mark.parametrize("name", ["Flux", pytest.param("Krea 2", marks=pytest.mark.full)])
def test_with_another_nodes_attention(name):
    check("with another attention", network(name), name, network(name).condition(1), inner=sharper)


def replaced(patcher, replacement, kind="double_block", index=1):
    out = patcher.clone()
    out.set_model_patch_replace(replacement, "dit", kind, index)
    return out


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Qwen-Image", "double_block"),
        *(pytest.param("Flux", k, marks=pytest.mark.full) for k in ("double_block", "single_block")),
    ],
)
def test_with_a_replaced_block(name, kind):
    """As first-block caches and layer guidance do it: the block runs inside another node's function."""

    def half(args, extra):
        out = extra["original_block"]({**args, "vec": args["vec"]})
        return {**out, "img": out["img"] * 0.5}

    subject = network(name)
    check("with a replaced block", subject, name, subject.condition(1), patcher=replaced(subject.patcher, half, kind))


def test_a_skipped_block_is_skipped_for_the_negative_too(caplog):
    def skip(args, extra):
        return {"img": args["img"], "txt": args["txt"]}

    subject = network("Qwen-Image")
    patcher = replaced(subject.patcher, skip)
    check("with a skipped block", subject, "Qwen-Image", subject.condition(1), patcher=patcher, skipped=1)
    patcher = steer(replaced(subject.patcher, skip), subject.condition(2))
    for _ in range(2):  # once in each run: what a node shows goes when it runs again
        caplog.clear()
        subject.sample(patcher, subject.condition(1), subject.condition(1))
        [warning] = [each.message for each in caplog.records if "skips" in each.message]
        assert "block.1" in warning


def test_a_block_that_runs_twice_is_refused():
    def twice(args, extra):
        extra["original_block"]({**args, "img": args["img"].clone(), "txt": args["txt"].clone()})
        return extra["original_block"](args)

    subject = network("Qwen-Image")
    positive, patcher = subject.condition(1), replaced(subject.patcher, twice)
    found = find_patches(subject.patcher.model.diffusion_model)
    with pytest.raises(ValueError, match=r"block\.1.*twice"):
        subject.sample(steer(patcher, positive), positive, positive)
    assert find_patches(subject.patcher.model.diffusion_model) == found


def test_a_block_that_another_node_replaces_during_the_call_is_refused():
    """Its forward would never be seen, and the negative would silently do nothing there."""
    subject = network("SD3.5 medium")
    block = subject.patcher.model.diffusion_model.joint_blocks[1]
    positive = subject.condition(1)

    def swap(module, args):
        kept = type(block).forward
        block.forward = lambda *args, **kwargs: kept(block, *args, **kwargs)

    handle = subject.patcher.model.diffusion_model.x_embedder.register_forward_pre_hook(swap)
    try:
        with pytest.raises(ValueError, match=r"block\.1"):
            subject.sample(steer(subject.patcher, positive), positive, positive)
    finally:
        handle.remove()
        vars(block).pop("forward", None)


def test_tokens_that_another_node_adds_are_refused():
    """Such as those of a picture, among the keys."""

    def more_keys(q, k, v, pe=None, attn_mask=None, extra_options=None):
        return {"k": torch.cat([k, k[:, :, :4]], 2), "v": torch.cat([v, v[:, :, :4]], 2)}

    subject = network("Krea 2")
    patcher = subject.patcher.clone()
    patcher.set_model_patch(more_keys, "attn1_patch")
    positive = subject.condition(1)
    with pytest.raises((ValueError, RuntimeError)):
        subject.sample(steer(patcher, positive), positive, positive)


@pytest.mark.full
def test_scale_sweep_gives_the_pictures_of_nasa_apply():
    class Decoder:
        def __init__(self):
            self.latents = []

        def decode(self, latent):
            self.latents.append(latent)
            return torch.zeros(latent.shape[0], 16, 16, 3)

    subject, vae = network("Flux"), Decoder()
    positive, negative = subject.condition(1), subject.condition(3)
    strengths = [(make_method("NASA"), alpha) for alpha in (0.0, 0.3, 0.8)]
    sampling = subject.patcher.get_model_object("model_sampling")
    latent, sigmas = {"samples": torch.zeros(1, *subject.shape)}, torch.tensor([float(sampling.sigma_max), 0.0])
    sweep(
        subject.patcher, conditioning(positive), conditioning(negative), latent, vae, strengths=strengths, seed=7,
        sampler=comfy.samplers.sampler_object("euler"), sigmas=sigmas,
    )  # fmt: skip
    different = [relative_error(each, vae.latents[0]) for each in vae.latents]
    assert len(different) == 3 and different[0] == 0.0 and EFFECT < different[1] < different[2]


@pytest.mark.full
def test_no_alpha_is_said_to_be_known():
    subject = network("Flux")
    with pytest.raises(ValueError, match=r"no alpha has been measured on .* joint attention: begin at 0\.5"):
        auto_alpha(subject.patcher)
