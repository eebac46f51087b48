"""LTX-2.3 as workflows run it: in two stages, with guides from the host's nodes, in windows of frames.

ComfyUI 0.30.0 has no sampling in tiles for LTX; windows of frames are all that it divides a latent into.
"""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.utils
import pytest
import torch
from effort import some
from families import case, conditioning
from families.base import draw
from families.contract import BAR, EFFECT, steer, subtract
from families.ltx2 import resized
from families.steps import expected_euler, sample_euler
from figures import measured
from host_nodes import has_node, run_node
from reference import relative_error

pytestmark = pytest.mark.host

ONLY_VIDEO = ["video.0", "video.1"]
STAGES = (1.0, 0.6, 0.0), (0.85, 0.4, 0.0)
"""Sigmas of two samplers, the second of which begins with the first one's video, enlarged."""


def sampled(subject, patcher, prompt, latent, **settings):
    """One step of the host from sigma 1; lcm returns x0 as it is."""
    return comfy.sample.sample_custom(
        patcher, subject.to_host(subject.noise()), 1.0, comfy.samplers.ksampler("lcm"), torch.tensor([1.0, 0.0]),
        prompt, prompt, latent, disable_pbar=True, seed=7, **settings,
    ).unbind()  # fmt: skip


def x0(subject, x, prompt, subtractions):
    """What the network predicts at sigma 1, fp64."""
    return x - subject.reference.output(x, torch.ones(1), prompt, subtractions)


def enlarged(subject, latent):
    """The latent with twice the height and width of its video, as LTXVLatentUpsampler makes it; packed as before."""
    video, audio = comfy.utils.unpack_latents(latent, subject.reference.shapes)
    return comfy.utils.pack_latents([video.repeat_interleave(2, -1).repeat_interleave(2, -2), audio])[0]


@pytest.mark.both_hosts
@pytest.mark.parametrize("is_masked", some([False, True], 1))
def test_two_stages(is_masked):
    """With one NASA Apply for both samplers; its mask is for either size."""
    small = case("LTX-2.3")
    channels, frames, height, width = small.latent_shape
    large = resized(small, (channels, frames, 2 * height, 2 * width))
    positive, negative = small.condition(1), small.condition(3)
    mask, blocks = (small.half()[0], "video") if is_masked else (None, "all")
    steered = steer(small.patcher, negative, mask=mask, blocks=blocks)

    def both():
        first = sample_euler(small, [steered] * 2, STAGES[0], positive, 2)
        start = enlarged(small, first)
        return first, sample_euler(large, [steered] * 2, STAGES[1], positive, 2, start)

    def away(subject):
        where = {"image_tokens": subject.half()[1], "blocks": ONLY_VIDEO} if is_masked else {}
        return [subtract(negative, **where)]

    first, got = both()
    start = expected_euler([small] * 2, STAGES[0], positive, away(small), 2)
    expected = expected_euler([large] * 2, STAGES[1], positive, away(large), 2, enlarged(small, start))
    once = expected_euler([large] * 2, STAGES[1], positive, [], 2, enlarged(small, start))
    assert relative_error(once, expected) > EFFECT
    row = f"Two stages, LTX-2.3{', with a mask' if is_masked else ''}"
    measured("composition", row, "relative error", relative_error(got, expected), 2 * BAR)
    assert all(torch.equal(*pair) for pair in zip(both(), (first, got), strict=True))


class Encoder:
    """A VAE that gives one random latent frame."""

    downscale_index_formula = (8, 32, 32)

    def __init__(self, shape):
        self.shape = shape

    def encode(self, pixels):
        channels, _, height, width = self.shape
        return draw(torch.Generator().manual_seed(8), 1, channels, 1, height, width)


@pytest.mark.both_hosts
@pytest.mark.parametrize("strength", some([0.5, 1.0], 1))
def test_guides_from_the_hosts_node(strength):
    """LTXVAddGuide appends a frame to the video alone, which is joined to the sound afterwards."""
    plain = case("LTX-2.3")
    channels, frames, height, width = plain.latent_shape
    subject = resized(plain, (channels, frames + 1, height, width))
    positive, negative = plain.condition(1), plain.condition(3)
    guided, guided_negative, video = run_node(
        "nodes_lt.LTXVAddGuide", positive=conditioning(positive), negative=conditioning(negative),
        vae=Encoder(plain.latent_shape), latent={"samples": torch.zeros(1, *plain.latent_shape)},
        image=torch.rand(1, 32 * height, 32 * width, 3), frame_idx=0, strength=strength,
    )  # fmt: skip
    sound = {"samples": plain.to_host(plain.latent()).unbind()[1]}
    latent = run_node("nodes_lt.LTXVConcatAVLatent", video_latent=video, audio_latent=sound)

    # What is known of the latent has less noise, and is put back after the network.
    shares = zip(latent["noise_mask"].unbind(), subject.reference.shapes, strict=True)
    share = comfy.utils.pack_latents([each.expand(shape) for each, shape in shares])[0]
    known = subject.from_host(latent["samples"]).double()
    x = subject.noise().double() * share + known * (1.0 - share)
    prompt = {**guided[0][1], "context": positive["context"], "concat_mask": share}
    without, expected = (
        x0(subject, x, prompt, away) * share + known * (1.0 - share) for away in ([], [subtract(negative)])
    )
    assert relative_error(without, expected) > EFFECT
    for (context, settings), *_ in (conditioning(negative), guided_negative):
        steered = steer(plain.patcher, {**settings, "context": context})
        got = sampled(subject, steered, guided, latent["samples"], noise_mask=latent["noise_mask"])
        error = relative_error(comfy.utils.pack_latents(got)[0], expected)
        measured("composition", "LTXVAddGuide, LTX-2.3", "relative error", error, BAR)


WINDOWS = "nodes_context_windows.LTXVContextWindowsNode"


@pytest.mark.skipif(not has_node(WINDOWS), reason="not in this ComfyUI")
@pytest.mark.parametrize("is_masked", some([False, True], 1))
def test_windows_of_frames(is_masked):
    """The host cuts video and sound, and puts the frame before a window in front of its video."""
    plain = case("LTX-2.3")
    channels, _, height, width = plain.latent_shape
    whole = resized(plain, (channels, 4, height, width), (8, 4, 16))
    positive, negative = plain.condition(1), plain.condition(3)
    mask, blocks, row = None, "all", "Windows of frames, LTX-2.3"
    if is_masked:
        mask = torch.tensor([1.0, 0.0, 0.0, 1.0])[:, None, None].expand(4, height, width)
        blocks, row = "video", f"{row}, a mask for each frame"
    windowed = run_node(
        WINDOWS, model=steer(plain.patcher, negative, mask=mask, blocks=blocks), context_length=9, context_overlap=0,
        context_schedule="standard_static", fuse_method="pyramid", freenoise=False,
    )  # fmt: skip
    got = sampled(whole, windowed, conditioning(positive), whole.to_host(whole.latent()))

    def expected(is_steered):
        video, audio = comfy.utils.unpack_latents(whole.noise().double(), whole.reference.shapes)
        parts = []
        for frames, sounds in (([0, 1], [0, 1]), ([1, 2, 3], [2, 3])):
            part = resized(plain, (channels, len(frames), height, width), (8, len(sounds), 16))
            where = {"image_tokens": mask[frames].flatten(), "blocks": ONLY_VIDEO} if is_masked else {}
            x, shapes = comfy.utils.pack_latents([video[:, :, frames], audio[:, :, sounds]])
            out = x0(part, x, positive, [subtract(negative, **where)] * is_steered)
            parts.append([each[:, :, -2:] for each in comfy.utils.unpack_latents(out, shapes)])
        return [torch.cat(each, 2) for each in zip(*parts, strict=True)]

    right, without = expected(True), expected(False)
    assert relative_error(without[0], right[0]) > EFFECT
    for stream, each in zip(got, right, strict=True):
        measured("composition", row, "relative error", relative_error(stream, each), BAR)
