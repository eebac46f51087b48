"""One-Step Sampler against the formula in fp64 and against diffusers' schedulers."""

from __future__ import annotations

import comfy.sample
import pytest
import torch
from diffusers import DDPMScheduler, LCMScheduler
from reference import relative_error
from unets import case, conditioning, empty_latent, noise

from snoopi_core.host.one_step import one_step

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

TOLERANCE = 5e-6
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
MODELS = [("sd15", "epsilon"), ("sd15", "sample"), ("sd21", "v_prediction"), ("sdxl", "epsilon")]
SEED = 7


def sample(subject, positive, timesteps, rows=2, seed=SEED):
    latent = {"samples": empty_latent(rows)}
    return one_step(subject.patcher, conditioning(positive), latent, seed=seed, timesteps=timesteps)["samples"]


@pytest.mark.parametrize(("kind", "prediction_type"), MODELS)
@pytest.mark.parametrize("t", [999, 800, 399])
def test_matches_the_formula(kind, prediction_type, t):
    subject = case(kind, prediction_type)
    positive = subject.condition(1)
    error = relative_error(sample(subject, positive, str(t)), subject.reference.x0(noise(2, SEED), t, positive))
    print(f"relative error {error:.1e}")
    assert error <= TOLERANCE


@pytest.mark.parametrize(("kind", "prediction_type"), MODELS)
@pytest.mark.parametrize("t", [999, 800, 399])
def test_matches_the_step_of_a_scheduler(kind, prediction_type, t):
    subject = case(kind, prediction_type)
    positive = subject.condition(1)
    scheduler = DDPMScheduler(**SCHEDULE, prediction_type=prediction_type, clip_sample=False)
    x = noise(2, SEED).double()
    output = subject.reference.output(x, t, positive)
    expected = scheduler.step(output, t, x).pred_original_sample
    assert relative_error(sample(subject, positive, str(t)), expected) <= TOLERANCE


@pytest.mark.parametrize(("kind", "prediction_type"), MODELS)
def test_few_steps_match_the_consistency_sampler(kind, prediction_type, monkeypatch):
    """x0, fresh noise at the next timestep, x0 again: diffusers' LCM step, given the same noise."""
    timesteps = [999, 749, 499, 249]
    subject = case(kind, prediction_type)
    positive = subject.condition(1)
    drawn, draw = [], comfy.sample.prepare_noise
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    got = sample(subject, positive, "999, 749, 499, 249")
    assert len(drawn) == 4

    # Its boundary conditions c_skip and c_out are 0 and 1 but for t near 0.
    scheduler = LCMScheduler(**SCHEDULE, prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(timesteps=timesteps)
    x = noise(2, SEED).double()
    for step, t in enumerate(timesteps):
        output = subject.reference.output(x, t, positive)
        x = scheduler.step(output, t, x).denoised
        if step + 1 < len(timesteps):
            x = scheduler.add_noise(x, drawn[step + 1].double(), torch.tensor([timesteps[step + 1]]))
    assert relative_error(got, x) <= TOLERANCE


def test_stock_samplers_agree_only_at_the_last_timestep():
    """Why this node exists: from sigma * noise, the network's input at t = 399 has a standard deviation of 0.76."""
    import comfy.samplers

    subject = case("sd15")
    positive = subject.condition(1)
    sampling = subject.patcher.get_model_object("model_sampling")

    def stock(t):
        sigmas = torch.tensor([float(sampling.sigma(torch.tensor(float(t)))), 0.0])
        sampler = comfy.samplers.ksampler("lcm")
        cond = conditioning(positive)
        return comfy.sample.sample_custom(
            subject.patcher, noise(2, SEED), 1.0, sampler, sigmas, cond, cond, empty_latent(2), disable_pbar=True
        )

    assert relative_error(stock(999), sample(subject, positive, "999")) <= TOLERANCE
    assert relative_error(stock(399), sample(subject, positive, "399")) > 0.05
