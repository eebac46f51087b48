"""What is special about LTX-Video: two streams, a text modulated by the noise level, guides, known parts."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import comfy.sample
import comfy.samplers
import comfy.utils
import pytest
import torch
from families import Case, case, conditioning
from families.contract import BAR, EFFECT, steer, subtract
from families.ltx2 import ltx2
from families.steps import lora_of, merged, with_lora
from figures import measured
from reference import relative_error

from snoopi_core.guidance.methods import NASA
from snoopi_core.host.inspect import inspect
from snoopi_core.host.sweep import sweep

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]


@pytest.fixture
def subject():
    return case("LTX-2.3")


@pytest.mark.parametrize("stream", ["video", "audio"])
def test_blocks_choose_the_stream(subject, stream):
    positive, negative = subject.condition(1), subject.condition(3)
    got = subject.sample(steer(subject.patcher, negative, blocks=stream), positive, positive)
    expected = subject.expected(positive, [subtract(negative, blocks=[f"{stream}.0", f"{stream}.1"])])
    assert relative_error(subject.expected(positive, [subtract(negative)]), expected) > EFFECT
    measured("families", subject.name, "relative error", relative_error(got, expected), BAR)


def test_a_mask_needs_the_video_alone(subject):
    positive, negative = subject.condition(1), subject.condition(3)
    mask, tokens = subject.half()
    for blocks in ("all", "audio", "video, audio.1"):
        with pytest.raises(ValueError, match=r"mask: .*audio.*work on sound"):
            steer(subject.patcher, negative, blocks=blocks, mask=mask)
    got = subject.sample(steer(subject.patcher, negative, blocks="video", mask=mask), positive, positive, rows=2)
    only = {"blocks": ["video.0", "video.1"]}
    expected = subject.expected(positive, [subtract(negative, image_tokens=tokens, **only)], rows=2)
    assert relative_error(subject.expected(positive, [subtract(negative, **only)], rows=2), expected) > EFFECT
    measured("families", subject.name, "relative error", relative_error(got, expected), BAR)


def test_a_mask_for_each_frame(subject):
    """The frames are those of the video, not the rows of the packed latent."""
    positive, negative = subject.condition(1), subject.condition(3)
    frames, height, width = subject.latent_shape[1:]
    mask = torch.zeros(frames, height, width)
    mask[1] = 1.0
    got = subject.sample(steer(subject.patcher, negative, blocks="video", mask=mask), positive, positive, rows=2)
    where = {"blocks": ["video.0", "video.1"], "image_tokens": mask.flatten()}
    expected = subject.expected(positive, [subtract(negative, **where)], rows=2)
    measured("families", subject.name, "relative error", relative_error(got, expected), BAR)


def known(subject, video: float, audio: float) -> torch.Tensor:
    """A mask over both latents, packed: how much noise each keeps; the first frame of the video is known."""
    video_mask = torch.full((1, 1, *subject.latent_shape[1:]), video)
    video_mask[:, :, 0] = 0.0
    shapes = [tuple(each.shape) for each in subject.to_host(subject.latent()).unbind()]
    masks = [video_mask.expand(shapes[0]), torch.full(shapes[1], audio)]
    return comfy.utils.pack_latents(masks)[0]


@pytest.mark.parametrize(("video", "audio"), [(1.0, 0.0), (0.25, 0.75)])
def test_known_parts_have_a_noise_level_of_their_own(subject, video, audio):
    """And so has the text: the highest of its stream."""
    mask = known(subject, video, audio)
    positive, negative = ({**subject.condition(seed), "concat_mask": mask} for seed in (1, 3))
    for without_mask in (negative, subject.condition(3)):
        got = subject.sample(steer(subject.patcher, without_mask), positive, positive, rows=2)
        expected = subject.expected(positive, [subtract(negative)], rows=2)
        measured("families", subject.name, "relative error", relative_error(got, expected), BAR)
    assert relative_error(subject.expected(positive, rows=2), expected) > EFFECT


def guide_of(subject):
    """As LTXVAddGuide adds it to both prompts: the last frame is a guide without noise, with places of its own."""
    frames, height, width = subject.latent_shape[1:]
    mask = torch.ones(1, 1, frames, height, width)
    mask[:, :, -1] = 0.0
    places = torch.arange(height * width * 3 * 2).remainder(11).view(1, 3, height * width, 2).float()
    return {"keyframe_idxs": places, "concat_mask": mask}


def test_a_mask_for_each_frame_beside_guides_is_refused():
    """They are frames of the latent, so that the mask's would not meet those of the video."""
    subject = case("LTXV")
    positive = {**subject.condition(1), **guide_of(subject)}
    for pictures, refused in ((2, True), (1, False)):
        steered = steer(subject.patcher, subject.condition(3), mask=torch.ones(pictures, *subject.latent_shape[-2:]))
        with pytest.raises(ValueError, match="guides have been added") if refused else nullcontext():
            subject.sample(steered, positive, positive)


@pytest.mark.parametrize("name", ["LTXV", "LTXV, modulated text"])
def test_guides(name):
    """LTXVAddGuide appends frames, and gives both prompts their places; the latter have no part in a negative."""
    subject = case(name)
    guide = guide_of(subject)
    positive, negative = ({**subject.condition(seed), **guide} for seed in (1, 3))
    expected = subject.expected(positive, [subtract(negative)], rows=2)
    assert relative_error(subject.expected(positive, rows=2), expected) > EFFECT
    for each in (negative, {**subject.condition(3), "keyframe_idxs": guide["keyframe_idxs"]}, subject.condition(3)):
        got = subject.sample(steer(subject.patcher, each), positive, positive, rows=2)
        measured("families", name, "relative error", relative_error(got, expected), BAR)


def test_a_lora_before_and_after(subject):
    """Its keys and values of a negative are made from the weights during the call."""
    positive, negative = subject.condition(1), subject.condition(3)
    lora = lora_of(subject, 5)
    got = subject.sample(steer(with_lora(subject.patcher, lora), negative), positive, positive)
    after = subject.sample(with_lora(steer(subject.patcher, negative), lora), positive, positive)
    with merged(subject, lora):
        expected = subject.expected(positive, [subtract(negative)])
    assert relative_error(subject.expected(positive, [subtract(negative)]), expected) > EFFECT
    measured("families", subject.name, "relative error", relative_error(got, expected), BAR)
    assert torch.equal(after, got)


class TwoScales(comfy.samplers.CFGGuider):
    """A guider with a scale for each stream, as the LTX workflows have."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        conditionings = [self.conds["negative"], self.conds["positive"]]
        out = comfy.samplers.calc_cond_batch(self.inner_model, conditionings, x, timestep, model_options or {})
        shapes = self.conds["positive"][0]["model_conds"]["latent_shapes"].cond
        streams = [comfy.utils.unpack_latents(each, shapes) for each in out]
        mixed = [no + scale * (yes - no) for no, yes, scale in zip(*streams, self.scales, strict=True)]
        return comfy.utils.pack_latents(mixed)[0]


def test_a_guider_with_a_scale_for_each_stream(subject):
    positive, other, negative = subject.condition(1), subject.condition(2), subject.condition(3)
    guider = TwoScales(steer(subject.patcher, negative))
    guider.scales = 2.0, 1.0
    guider.set_conds(conditioning(positive), conditioning(other))
    sigmas = torch.tensor([float(subject.patcher.model.model_sampling.sigma_max), 0.0])
    got = guider.sample(
        subject.to_host(subject.noise(2)), subject.to_host(subject.latent(2)), comfy.samplers.ksampler("lcm"), sigmas,
        disable_pbar=True, seed=7,
    )  # fmt: skip
    guidance = {"unconditional": other, "rows": 2}
    by_scale = [subject.expected(positive, [subtract(negative)], cfg=cfg, **guidance) for cfg in (2.0, 1.0)]
    for stream in range(2):
        expected = subject.to_host(by_scale[stream]).unbind()[stream]
        error = relative_error(got.unbind()[stream], expected)
        measured("families", subject.name, "relative error", error, 2 * BAR)


def test_a_text_that_has_passed_through_the_connectors(subject):
    """Some text encoders hold them, and then the host leaves them out."""
    positive, negative = subject.condition(1), subject.condition(3)
    network = subject.patcher.model.diffusion_model
    with torch.no_grad():
        connected = {"context": network.preprocess_text_embeds(negative["context"], unprocessed=True)}
    got = subject.sample(steer(subject.patcher, connected), positive, positive)
    assert torch.equal(got, subject.sample(steer(subject.patcher, negative), positive, positive))


def test_inspect_names_both_streams(subject):
    positive, steered = conditioning(subject.condition(1)), steer(subject.patcher, subject.condition(3))
    latent = {"samples": subject.to_host(subject.latent())}
    chart, report = inspect(steered, positive, latent, seed=7)
    assert "acts in 4 of 4 cross-attentions of LTX-2" in report and chart.isfinite().all()
    assert all(name in report for name in ("video.0", "video.1", "audio.0", "audio.1"))


def test_scale_sweep_shows_the_video(subject):
    """With a sampler and sigmas, as for any model of several steps."""

    class Decoder:
        def decode(self, samples):
            return samples[:, :3].movedim(1, -1).clamp(0, 1)

    positive, negative = conditioning(subject.condition(1)), subject.condition(3)
    sigmas, sampler = torch.tensor([1.0, 0.5, 0.0]), comfy.samplers.ksampler("euler")
    strengths = [(NASA, 0.0), (NASA, 0.5)]
    _, pictures, _ = sweep(
        subject.patcher, positive, conditioning(negative), {"samples": subject.to_host(subject.latent())}, Decoder(),
        strengths=strengths, seed=7, sampler=sampler, sigmas=sigmas,
    )  # fmt: skip
    frames, height, width = subject.latent_shape[1:]
    assert pictures.shape == (2 * frames, height, width, 3)
    alone = comfy.sample.sample_custom(
        steer(subject.patcher, negative), subject.to_host(subject.noise()), 1.0, sampler, sigmas, positive, positive,
        subject.to_host(subject.latent()), disable_pbar=True, seed=7,
    )  # fmt: skip
    assert torch.equal(pictures[frames:], Decoder().decode(alone.unbind()[0])[0])


def test_a_video_without_sound(subject):
    """Then the layers of the sound are not called."""
    alone = Case(**{each.name: getattr(subject, each.name) for each in dataclasses.fields(Case)})
    positive, negative = alone.condition(1), alone.condition(3)
    got = alone.sample(steer(alone.patcher, negative), positive, positive, rows=2)
    expected = alone.expected(positive, [subtract(negative)], rows=2)
    assert relative_error(alone.expected(positive, rows=2), expected) > EFFECT
    measured("families", subject.name, "relative error", relative_error(got, expected), BAR)


@pytest.mark.full
def test_the_connectors_fill_a_text_with_learned_tokens():
    """To 1024 tokens, as in the published models; without them elsewhere, because they take ten seconds."""
    whole = ltx2("LTX-2", registers=True)
    positive, negative = whole.condition(1), whole.condition(3, whole.more)
    got = whole.sample(steer(whole.patcher, negative), positive, positive)
    measured(
        "families",
        whole.name,
        "relative error",
        relative_error(got, whole.expected(positive, [subtract(negative)])),
        BAR,
    )
