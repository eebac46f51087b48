"""Inpainting with One-Step Sampler, where the mask has greys too."""

from __future__ import annotations

import comfy.sample
import pytest
import torch
from figures import measured
from host_nodes import run_node
from reference import relative_error
from unets import SIDE, case, conditioning, noise

from snoopi_core.host.one_step import one_step

pytestmark = pytest.mark.host

BAR = 1e-5
SD15 = ("sd15", "epsilon")


def sample(patcher, samples, *, preset="auto", timesteps="auto", **latent):
    subject = case(*SD15)
    positive, latent = conditioning(subject.condition(1)), {"samples": samples, **latent}
    patcher = patcher or subject.patcher
    return one_step(patcher, positive, latent, seed=7, timesteps=timesteps, preset=preset)["samples"]


def picture():
    return torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


class TestSoftMasks:
    """Inpainting starts from the noise of the training where the mask is 1, and from the noised picture where it is 0.

    KSampler adds the picture everywhere, so its result also depends on what is to be drawn anew.
    """

    MASK = torch.linspace(0, 1, SIDE).expand(1, SIDE, SIDE)  # of the latent

    def expected(self, t, start, picture):
        """x0 from `start` where the mask is 1, and the picture where it is 0; both blended where it is between."""
        reference = case(*SD15).reference
        alpha, sigma = reference.alpha_sigma(t)
        mask, z = self.MASK.double(), noise().double()
        x = mask * start + (1 - mask) * (alpha * picture + sigma * z)
        x0 = reference.x0(x, t, case(*SD15).condition(1))
        return mask * x0 + (1 - mask) * picture

    @pytest.mark.both_hosts
    @pytest.mark.parametrize("t", [999, 399])
    def test_they_match_the_formula(self, t):
        mask = self.MASK.repeat_interleave(8, 1).repeat_interleave(8, 2)
        got = sample(None, picture(), timesteps=str(t), noise_mask=mask)
        error = relative_error(got, self.expected(t, noise().double(), picture().double()))
        measured("presets", "Inpainting with a soft mask", f"relative error, t = {t}", error, BAR)

    def test_ksampler_adds_the_picture_where_it_is_drawn_anew(self):
        subject = case(*SD15)
        positive = conditioning(subject.condition(1))
        mask = self.MASK.repeat_interleave(8, 1).repeat_interleave(8, 2)[None]
        theirs = comfy.sample.sample(
            subject.patcher, noise(), 1, 1.0, "lcm", "simple", positive, positive, picture(), seed=7,
            disable_pbar=True, noise_mask=mask,
        )  # fmt: skip
        z, alpha = noise().double(), subject.reference.alpha_sigma(999)[0]
        assert relative_error(theirs, self.expected(999, z + alpha * picture().double(), picture().double())) < BAR
        assert relative_error(theirs, self.expected(999, z, picture().double())) > 1e-2

    @pytest.mark.parametrize(("preset", "t"), [("auto", "999"), ("auto", "399"), ("Hyper-SD LoRA, 1 step", "800")])
    def test_differential_diffusion_decides_at_each_pixel(self, preset, t):
        """In one step, only what is white is drawn anew."""
        patcher = run_node("nodes_differential_diffusion.DifferentialDiffusion", model=case(*SD15).patcher)
        grey = torch.full((1, 8 * SIDE, 8 * SIDE), 0.5)
        grey[..., : 4 * SIDE] = 1.0
        got = sample(patcher, picture(), preset=preset, timesteps=t, noise_mask=grey)
        assert torch.equal(got[..., SIDE // 2 :], picture()[..., SIDE // 2 :])
        assert relative_error(got[..., : SIDE // 2], picture()[..., : SIDE // 2]) > 0.1
