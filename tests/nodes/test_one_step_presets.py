"""Every preset against the scheduler of diffusers that the model's authors use, or their formula, in fp64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.sample
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)
from diffusers.schedulers import scheduling_ddpm, scheduling_lcm, scheduling_tcd
from figures import measured
from pixart_pair import SIDE, pixart_pair
from reference import relative_error
from unets import case, conditioning, empty_latent

from snoopi_core.host.one_step import one_step
from snoopi_core.presets import PRESETS, Preset, find_preset

pytestmark = pytest.mark.host

BAR = 1e-5
ROWS, SEED = 2, 7
BETAS = {
    "SD1/SD2": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "SDXL": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "PixArt": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
}
Network = Callable[[torch.Tensor, int], torch.Tensor]
LCM_STEPS = "LCMScheduler"
EULER = "EulerDiscreteScheduler, trailing"
FORMULA = "x0 formula"
DDPM = "DDPMScheduler"
AGAINST = {
    "PG-SB SD1.5": DDPM,
    "PG-SB SD2.1": DDPM,
    "PG-SB PixArt, 999": FORMULA,
    "PG-SB PixArt, 400": DDPM,
    "PG-SB SDXL": DDPM,
    "PG-SB, 2 steps": LCM_STEPS,
    "PG-SB, 4 steps": LCM_STEPS,
    "SwiftBrush": FORMULA,
    "SwiftBrush v2": DDPM,
    "DMD2 SD1.5": DDPM,
    "SDXL-DMD2, 1 step": LCM_STEPS,
    "SDXL-DMD2, 4 steps": LCM_STEPS,
    "PixArt-DMD": DDPM,
    "YOSO-PixArt": LCM_STEPS,
    "InstaFlow-0.9B": "x = z + v(z, 1000)",
    "SD-Turbo, 1 step": EULER,
    "SD-Turbo, 4 steps": EULER,
    "SDXL-Turbo, 1 step": EULER,
    "SDXL-Lightning, 1 step": EULER,
    "SDXL-Lightning, 2 steps": EULER,
    "SDXL-Lightning, 4 steps": EULER,
    "SDXL-Lightning, 8 steps": EULER,
    "LCM-LoRA, 4 steps": LCM_STEPS,
    "Hyper-SDXL UNet, 1 step": LCM_STEPS,
    "Hyper-SD LoRA, 1 step": "TCDScheduler, eta 1",
    "SiD-LSG": "DDPMScheduler, from add_noise",
}


@dataclass(frozen=True)
class Subject:
    patcher: object
    network: Network
    positive: list
    latent: torch.Tensor


def subject_of(preset: Preset, architecture: str) -> Subject:
    if architecture == "PixArt":
        pair = pixart_pair()
        positive = pair.condition(1)
        network, latent = (lambda x, t: pair.output(x, t, positive)), torch.zeros(ROWS, 4, SIDE, SIDE)
        return Subject(pair.patcher, network, conditioning(positive), latent)
    sd2 = preset.name in ("PG-SB SD2.1", "SwiftBrush v2", "SD-Turbo, 1 step", "SD-Turbo, 4 steps")
    model = case("sdxl" if architecture == "SDXL" else "sd21" if sd2 else "sd15")
    positive = model.condition(1)
    return Subject(
        model.patcher, lambda x, t: model.reference.output(x, t, positive), conditioning(positive), empty_latent(ROWS)
    )


def expected_of(preset: Preset, architecture: str, network: Network, noises: list[torch.Tensor]) -> torch.Tensor:
    """The result by independent code, fp64; `noises` for the start and for each time that a scheduler draws noise."""
    z, against = noises[0].double(), AGAINST[preset.name]
    timesteps = list(preset.timesteps)
    settings = {**BETAS[architecture], "prediction_type": preset.prediction_type or "epsilon"}  # the subjects' own
    if against == FORMULA:
        assert preset.prediction_type == "epsilon" and preset.alpha_T_squared == 0.0047
        return (z - (1 - 0.0047) ** 0.5 * network(z, 999)) / 0.0047**0.5
    if against == "x = z + v(z, 1000)":
        expected = z + network(z, 1000)
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=[1.0])
        assert scheduler.timesteps.tolist() == [1000.0]
        by_scheduler = scheduler.step(-network(z, 1000), scheduler.timesteps[0], z).prev_sample
        assert relative_error(by_scheduler, expected) < 1e-6
        return expected
    if against == EULER:
        scheduler = EulerDiscreteScheduler(**settings, timestep_spacing="trailing")
        scheduler.set_timesteps(len(timesteps))
    elif against == LCM_STEPS:
        scheduler = LCMScheduler(**settings, clip_sample=False)
        spaced = preset.name in ("YOSO-PixArt", "LCM-LoRA, 4 steps")  # diffusers' spacing for this number of steps
        scheduler.set_timesteps(len(timesteps)) if spaced else scheduler.set_timesteps(timesteps=timesteps)
    elif against == "TCDScheduler, eta 1":
        scheduler = TCDScheduler(**settings, clip_sample=False)
        scheduler.set_timesteps(timesteps=timesteps)
    else:
        scheduler = DDPMScheduler(**settings, clip_sample=False)
        scheduler.set_timesteps(timesteps=timesteps)
    assert scheduler.timesteps.tolist() == timesteps
    x = z * scheduler.init_noise_sigma
    if against == "DDPMScheduler, from add_noise":
        x = scheduler.add_noise(torch.zeros_like(z), z, torch.tensor(timesteps))
    options = {"eta": 1.0} if against == "TCDScheduler, eta 1" else {}
    for t, number in zip(scheduler.timesteps, timesteps, strict=True):
        output = network(scheduler.scale_model_input(x, t), number)
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


@pytest.fixture
def drawn(monkeypatch):
    """Noise that the host draws, in order; diffusers' schedulers, run afterwards, draw the same from the second on."""
    noises, draw = [], comfy.sample.prepare_noise

    def note(*given):
        noises.append(draw(*given))
        return noises[-1]

    later = iter(range(1, 100))
    monkeypatch.setattr(comfy.sample, "prepare_noise", note)
    for module in (scheduling_lcm, scheduling_tcd):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noises[next(later)].double())
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: torch.zeros(shape).double())
    return noises


@pytest.mark.parametrize(
    ("preset", "architecture"),
    [pytest.param(preset, a, id=f"{preset.name} on {a}") for preset in PRESETS for a in preset.architectures],
)
@torch.no_grad()
def test_a_preset_equals_the_authors_scheduler(preset, architecture, drawn):
    subject = subject_of(preset, architecture)
    latent = {"samples": subject.latent}
    out = one_step(subject.patcher, subject.positive, latent, seed=SEED, timesteps="auto", preset=preset.name)
    got = subject.patcher.model.process_latent_in(out["samples"])
    stochastic = len(preset.timesteps) if preset.steps != "euler" else 1
    assert len(drawn) == stochastic
    expected = expected_of(preset, architecture, subject.network, list(drawn))
    measured("presets", preset.name, "relative error", relative_error(got, expected), BAR)


@torch.no_grad()
@pytest.mark.parametrize("timesteps", [(800, 400), (999, 749, 499, 249)])
def test_several_steps_of_tcd(timesteps, drawn):
    preset, subject = find_preset("Hyper-SD LoRA, 1 step"), subject_of(find_preset("SwiftBrush"), "SD1/SD2")
    text = ", ".join(map(str, timesteps))
    latent = {"samples": subject.latent}
    got = one_step(subject.patcher, subject.positive, latent, seed=SEED, timesteps=text, preset=preset.name)["samples"]
    several = Preset(preset.name, preset.architectures, timesteps, "epsilon", "unit", "tcd")
    expected = expected_of(several, "SD1/SD2", subject.network, list(drawn))
    assert relative_error(got, expected) <= BAR


def test_every_preset_is_compared():
    assert list(AGAINST) == [preset.name for preset in PRESETS]
