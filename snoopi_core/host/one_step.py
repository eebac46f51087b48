"""One-step and few-step sampling in the host: network input of unit variance at any timestep, positive prompt only.

Dimensions: B batch rows, C latent channels, h x w latent height and width.

The host keeps x in variance-exploding form, x = x0 + sigma eps with sigma = sigma_t / alpha_t; its network sees
x / sqrt(1 + sigma^2) = alpha_t x0 + sigma_t eps. Its own samplers start from sigma * noise, which reaches unit variance
only at the last timestep (0.76 at t = 399); a one-step student needs noise of unit variance at whatever T it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

from ..one_step import parse_timesteps
from .attachment import get_metadata

Latent = dict[str, Any]
_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment: seeds of later steps lie far from anything a person types


def one_step(patcher: ModelPatcher, positive: list, latent: Latent, *, seed: int, timesteps: str) -> Latent:
    """Sample x0 from noise at each timestep in turn.

    Args:
        latent: gives size and batch; what it shows is kept only where its noise mask is 0.
        seed: of the noise, modulo 2^64; with a `batch_index`, a row's noise does not depend on the other rows.
        timesteps: as `parse_timesteps` takes them; `auto` is the recipe of the checkpoint, else the last timestep.

    Raises:
        ValueError: timesteps that cannot be read, or that the model's noise schedule does not have.
    """
    sampling = patcher.get_model_object("model_sampling")
    sigmas = torch.tensor([sigma_of(sampling, t) for t in _timesteps(patcher, sampling, timesteps)] + [0.0])

    samples = comfy.sample.fix_empty_latent_channels(patcher, latent["samples"], latent.get("downscale_ratio_spacial"))
    batch_index = latent.get("batch_index")
    seed %= 2**64

    def noise_of(step: int) -> torch.Tensor:
        return comfy.sample.prepare_noise(samples, (seed + step * _GOLDEN) % 2**64, batch_index)

    guider = comfy.samplers.CFGGuider(patcher)
    guider.inner_set_conds({"positive": positive})
    x0 = guider.sample(
        noise_of(0),
        samples,
        OneStepSampler(noise_of),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(patcher, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    out = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio_")}
    return {**out, "samples": _as_the_host_keeps(x0)}


class OneStepSampler(comfy.samplers.Sampler):
    """x0 at each sigma; between two, x_t = alpha_t x0 + sigma_t eps with fresh eps, as consistency samplers do."""

    def __init__(self, noise_of: Callable[[int], torch.Tensor]) -> None:
        self.noise_of = noise_of

    def max_denoise(self, model_wrap: Any, sigmas: torch.Tensor) -> bool:
        return True

    def sample(
        self,
        model_wrap: comfy.samplers.CFGGuider,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any],
        callback: Callable[[int, torch.Tensor, torch.Tensor, int], None] | None,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        denoise_mask: torch.Tensor | None = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        """x0, (B, C, h, w), in the model's latent scale; the signature is the host's."""
        sampling = model_wrap.inner_model.model_sampling
        denoise = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
        denoise.noise, denoise.latent_image = noise, latent_image

        steps = len(sigmas) - 1
        x = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
        for step in range(steps):
            sigma = sigmas[step].expand(x.shape[0])
            x0 = denoise(x, sigma, denoise_mask, **extra_args)
            if callback is not None:
                callback(step, x0, x, steps)
            if step + 1 < steps:
                x = sampling.noise_scaling(sigmas[step + 1], self.noise_of(step + 1).to(x), x0)
        return x0


def sigma_of(sampling: Any, timestep: int) -> float:
    """sigma_t / alpha_t of an integer timestep, by the model's own schedule.

    Raises:
        ValueError: the model has no such timestep, or none at all.
    """
    if not isinstance(sampling, comfy.model_sampling.EPS):
        kinds = ", ".join(base.__name__ for base in type(sampling).__bases__)
        raise ValueError(
            f"One-Step Sampler does not know this model's kind of prediction ({kinds}); "
            "it takes epsilon, v and x0 predictions on a variance-preserving schedule"
        )
    sigma = sampling.sigma(torch.tensor(float(timestep)))
    nearest = int(sampling.timestep(sigma).round()) if torch.isfinite(sigma) and sigma > 0 else None
    if nearest != timestep:
        hint = "it has none" if nearest is None else f"the nearest is {nearest}"
        raise ValueError(
            f"timestep {timestep} is not one of this model's timesteps; {hint}. "
            "A ModelSampling node before this one may have replaced the model's schedule"
        )
    return float(sigma)


def _as_the_host_keeps(samples: torch.Tensor) -> torch.Tensor:
    """On the device and in the dtype in which the host's KSampler hands latents from node to node."""
    management = comfy.model_management
    # Older hosts have no such choice, and keep the fp32 that sampling ends in.
    dtype = management.intermediate_dtype() if hasattr(management, "intermediate_dtype") else samples.dtype
    return samples.to(management.intermediate_device(), dtype)


def _timesteps(patcher: ModelPatcher, sampling: Any, text: str) -> tuple[int, ...]:
    count = getattr(sampling, "num_timesteps", 1000)
    metadata = get_metadata(patcher)
    recipe = metadata.recipe if metadata else None
    return parse_timesteps(text, auto=recipe.timesteps if recipe else (count - 1,), num_train_timesteps=count)
