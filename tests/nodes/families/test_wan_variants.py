"""What is special about the Wan networks: pictures beside the text, frame by frame, two chained models."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import pytest
import torch
from families import VARIANTS, case, conditioning
from families.contract import BAR, EFFECT, steer, subtract
from families.formula import Prepared
from families.steps import expected_euler, lora_of, merged, sample_euler, with_lora
from families.wan import second_t2v, vision_output
from figures import measured
from reference import relative_error

from snoopi_core.guidance.methods import make_method

pytestmark = pytest.mark.host
WITH_REFERENCES = ("Wan 2.1 HuMo", "Wan 2.1 Fun-Control", "Wan 2.2 S2V", "Wan 2.1 SCAIL", "Wan 2.1 SCAIL-2")


@pytest.mark.both_hosts
def test_a_picture_in_a_negative_for_text_to_video():
    """The network has no tokens for it, so that the negative's first tokens are text, not a picture's."""
    subject = case("Wan 2.1 T2V")
    positive, negative = subject.condition(1), subject.condition(3)
    with_picture = {**negative, **vision_output(torch.Generator().manual_seed(4))}
    without, got = (
        subject.sample(steer(subject.patcher, each), positive, positive) for each in (negative, with_picture)
    )
    assert torch.equal(got, without)


def test_vsf_with_a_picture_in_a_prompt_for_text_to_video():
    """Here too, all tokens of the prompt are text, although the host hands over a number of picture tokens."""
    subject = case("Wan 2.1 T2V")
    positive, vsf = subject.condition(1), make_method("VSF")
    with_picture = {**positive, **vision_output(torch.Generator().manual_seed(4))}
    steered = steer(subject.patcher, subject.condition(3), alpha=0.8, method=vsf)
    assert torch.equal(*(subject.sample(steered, each, each) for each in (positive, with_picture)))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("Wan 2.1 Causal",)])
@pytest.mark.full
def test_a_negative_is_its_text(name):
    """Its pictures, poses, audio and music make no difference, nor does their absence."""
    subject = case(name)
    positive, negative = subject.condition(1), subject.condition(3)
    others = {**subject.condition(4), "context": negative["context"]}
    results = [
        subject.sample(steer(subject.patcher, each), positive, positive)
        for each in (negative, others, {"context": negative["context"]})
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.skipif("Wan 2.1 VACE" not in VARIANTS, reason="not in this ComfyUI")
def test_the_blocks_of_vace():
    """It has a second list of blocks, which `blocks` calls vace."""
    subject = case("Wan 2.1 VACE")
    positive, negative = subject.condition(1), subject.condition(3)
    for blocks, indices in (("block", range(3)), ("vace.1-2", (4, 5))):
        got = subject.sample(steer(subject.patcher, negative, blocks=blocks), positive, positive)
        expected = subject.expected(positive, [subtract(negative, blocks=indices)])
        assert relative_error(subject.expected(positive, [subtract(negative)]), expected) > EFFECT
        measured("families", subject.name, "relative error", relative_error(got, expected), BAR)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name in WITH_REFERENCES])
def test_a_mask_beside_reference_pictures_is_refused(name):
    """Their tokens have no place in the picture; test_exact.py has masks without them."""
    subject = case(name)
    positive, mask = subject.condition(1), torch.ones(subject.latent_shape[-2:])
    with pytest.raises(ValueError, match=r"mask: .* a reference picture.* Disconnect the mask"):
        subject.sample(steer(subject.patcher, subject.condition(3), mask=mask), positive, positive)


@torch.no_grad()
def frame_by_frame(subject, positive, negative, rows):
    """The autoregressive sampler in fp64, one frame and one step at a time."""
    reference, model = subject.reference, subject.patcher.model
    tokens, _ = reference.prepare(negative, rows)
    for attention in reference.attentions:
        attention.subtractions = [Prepared(tokens=tokens, mask=None, subtraction=subtract(negative))]
    noise = subject.noise(rows).double()
    context = positive["context"].double().expand(rows, -1, -1)
    caches = [{"k": [], "v": []} for _ in reference.network.blocks]
    frames = []

    def run(x, t, start):
        texts = [{} for _ in caches]  # without K+ and V+ of the last frame
        level = torch.full((rows, 1), t)
        return reference.network.forward_block(x, level, context, start, caches, texts)

    for number in range(noise.shape[2]):
        x = noise[:, :, number : number + 1]
        x0 = x - run(x, 1000.0, number)
        run(x0, 0.0, number)
        for cache in caches:
            cache["k"], cache["v"] = [[part] for part in cache["now"]]
        frames.append(x0)
    return model.latent_format.process_out(torch.cat(frames, 2))


@pytest.mark.skipif("Wan 2.1 Causal" not in VARIANTS, reason="not in this ComfyUI")
def test_frame_by_frame():
    """From the second call on, the host attends to the text itself, with the keys and values that it has kept."""
    subject = case("Wan 2.1 Causal")
    positive, negative = subject.condition(1), subject.condition(3, subject.more)

    def sampled(patcher):
        return comfy.sample.sample_custom(
            patcher, subject.noise(2), 1.0, comfy.samplers.ksampler("ar_video", {"num_frame_per_block": 1}),
            torch.tensor([1.0, 0.0]), conditioning(positive), conditioning(positive), subject.latent(2),
            disable_pbar=True, seed=7,
        )  # fmt: skip

    steered = steer(subject.patcher, negative)
    got, expected = sampled(steered), frame_by_frame(subject, positive, negative, 2)
    plain = sampled(subject.patcher)
    assert all(relative_error(plain[:, :, frame], got[:, :, frame]) > EFFECT for frame in range(got.shape[2]))
    measured("families", subject.name, "relative error", relative_error(got, expected), BAR)
    assert torch.equal(sampled(steered), got) and torch.equal(sampled(subject.patcher), plain)
    assert not any("forward" in vars(module) for module in subject.patcher.model.diffusion_model.modules())


@pytest.mark.both_hosts
def test_two_chained_models_with_a_lora_each():
    """Wan 2.2 14B: one model for high noise, one for low, each with its acceleration LoRA and a node of its own."""
    cases, sigmas = (case("Wan 2.1 T2V"), second_t2v()), (1.0, 0.6, 0.0)
    positive, negative = cases[0].condition(1), cases[0].condition(3, cases[0].more)
    loras = [lora_of(each, seed) for seed, each in enumerate(cases)]
    with merged(cases[0], loras[0]), merged(cases[1], loras[1]):
        expected = expected_euler(cases, sigmas, positive, [subtract(negative)], 2)
        without = expected_euler(cases, sigmas, positive, [], 2)
    assert relative_error(expected_euler(cases, sigmas, positive, [subtract(negative)], 2), expected) > EFFECT
    before, after = [], []
    for each, lora in zip(cases, loras, strict=True):
        before.append(steer(with_lora(each.patcher, lora), negative))
        after.append(with_lora(steer(each.patcher, negative), lora))
    got = sample_euler(cases[0], before, sigmas, positive, 2)
    assert relative_error(without, got) > EFFECT
    error = relative_error(got, expected)
    measured("composition", "Two chained models with a LoRA each, Wan 2.2", "relative error", error, 2 * BAR)
    assert torch.equal(sample_euler(cases[0], after, sigmas, positive, 2), got)
