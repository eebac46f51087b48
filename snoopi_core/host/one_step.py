"""One-step and few-step sampling in the host: the noise that the model was trained on, positive prompt only.

Dimensions: B batch rows, C latent channels, h x w latent height and width.

The host keeps x in variance-exploding form, x = x0 + sigma eps with sigma = sigma_t / alpha_t; its network sees
x / sqrt(1 + sigma^2) = alpha_t x0 + sigma_t eps. Its own samplers start from sigma * noise, which reaches unit variance
only at the last timestep (0.76 at t = 399); most one-step students need noise of unit variance at whatever T they have.
A rectified flow's x is (1 - sigma) x0 + sigma eps, and its network sees it as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

from ..formats.checkpoint import Metadata, OneStepRecipe
from ..one_step import SMALLEST_LIKELY_TIMESTEP, euler_step, parse_timesteps, tcd_step
from ..presets import AUTO, Noise, Preset, Steps, find_preset
from .loading.attachment import get_metadata
from .loading.model_sampling import RectifiedFlow, last_timestep, sigma_of, with_preset
from .nasa.sampling_run import SPEAKER

Latent = dict[str, Any]
_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment: seeds of later steps lie far from anything a person types


Callback = Callable[[int, torch.Tensor, torch.Tensor, int], None]
"""What the host's samplers tell after each step: its number, x0, x, and how many there are."""
NoiseOf = Callable[[int], torch.Tensor]
"""Noise of unit variance for the step of this number, (B, C, h, w)."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a model is sampled with its positive prompt alone.

    patcher: the model, with the noise schedule that this takes.
    sigmas: of the steps, and 0.
    sampler: gives the host's sampler for the noise of its steps.
    is_patched: whether `patcher` has a schedule that the model must not keep.
    speaker: the node in whose name is logged what NASA does; "" for NASA Apply, whose doing it is in a sampler.
    """

    patcher: ModelPatcher
    sigmas: torch.Tensor
    sampler: Callable[[NoiseOf], comfy.samplers.Sampler]
    is_patched: bool = False
    speaker: str = ""

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1


def one_step(
    patcher: ModelPatcher, positive: list, latent: Latent, *, seed: int, timesteps: str, preset: str = AUTO
) -> Latent:
    """Sample x0 from noise at each timestep in turn; the arguments are those of `one_step_way` and `sample_alone`."""
    return sample_alone(one_step_way(patcher, timesteps=timesteps, preset=preset), positive, latent, seed=seed)


def one_step_way(patcher: ModelPatcher, *, timesteps: str, preset: str = AUTO, speaker: str = "") -> Way:
    """How a one-step or few-step model is sampled.

    Args:
        timesteps: as `parse_timesteps` takes them; `auto` is those of the preset.
        preset: of `presets.PRESETS`; `auto` is the recipe of the checkpoint, else the last timestep, with the model's
            own prediction type.
        speaker: the node in whose name this is logged, in place of One-Step Sampler.

    Raises:
        ValueError: a preset that is for other models; timesteps that cannot be read, or that the model's noise
            schedule does not have.
    """
    chosen, given = find_preset(preset), patcher
    if chosen is not None:
        patcher = with_preset(patcher, chosen)
    recipe = chosen or recipe_of(patcher)
    sampling = patcher.get_model_object("model_sampling")
    last = last_timestep(sampling)
    at = parse_timesteps(timesteps, auto=recipe.timesteps if recipe else (last,), num_train_timesteps=last + 1)
    sigmas = torch.tensor([sigma_of(sampling, t) for t in at] + [0.0])
    steps, noise = (recipe.steps, recipe.noise) if recipe else ("consistency", "unit")
    _say(speaker or "One-Step Sampler", patcher, chosen, at)
    if steps == "tcd" and isinstance(sampling, RectifiedFlow):
        raise ValueError("TCD's steps are for noise schedules, this is a flow model; expected euler or consistency")
    return Way(
        patcher=patcher,
        sigmas=sigmas,
        sampler=lambda noise_of: OneStepSampler(noise_of, noise=noise, steps=steps),
        is_patched=patcher is not given,
        speaker=speaker,
    )


def sample_alone(way: Way, positive: list, latent: Latent, *, seed: int, callback: Callback | None = None) -> Latent:
    """Sample with the positive prompt alone, as the host's BasicGuider does.

    Args:
        latent: gives size and batch; what it shows is kept only where its noise mask is 0.
        seed: of the noise, modulo 2^64; with a `batch_index`, a row's noise does not depend on the other rows.
        callback: told of each step; without one the host's progress bar and preview are.
    """
    patcher = way.patcher
    samples = comfy.sample.fix_empty_latent_channels(patcher, latent["samples"], latent.get("downscale_ratio_spacial"))
    _warn_of_size(way.speaker or "One-Step Sampler", patcher, samples)
    batch_index = latent.get("batch_index")
    seed %= 2**64

    def noise_of(step: int) -> torch.Tensor:
        return comfy.sample.prepare_noise(samples, (seed + step * _GOLDEN) % 2**64, batch_index)

    guider = comfy.samplers.CFGGuider(patcher)
    guider.inner_set_conds({"positive": positive})
    if way.speaker:
        setattr(guider, SPEAKER, way.speaker)
    try:
        x0 = guider.sample(
            noise_of(0),
            samples,
            way.sampler(noise_of),
            way.sigmas,
            denoise_mask=latent.get("noise_mask"),
            callback=callback or latent_preview.prepare_callback(patcher, way.steps),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    finally:
        if way.is_patched:  # the host itself would put the model's own schedule back only at its next use
            patcher.unpatch_model(unpatch_weights=False)
    out = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio_")}
    return {**out, "samples": _as_the_host_keeps(x0)}


class OneStepSampler(comfy.samplers.Sampler):
    """x0 at each sigma, and between two of them the steps that `presets` explains."""

    def __init__(self, noise_of: NoiseOf, *, noise: Noise = "unit", steps: Steps = "consistency") -> None:
        self.noise_of, self.noise, self.steps = noise_of, noise, steps

    def max_denoise(self, model_wrap: Any, sigmas: torch.Tensor) -> bool:
        return True

    def sample(
        self,
        model_wrap: comfy.samplers.CFGGuider,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any],
        callback: Callback | None,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        denoise_mask: torch.Tensor | None = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        """The result, (B, C, h, w), in the model's latent scale; the signature is the host's."""
        sampling = model_wrap.inner_model.model_sampling
        denoise = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
        denoise.noise, denoise.latent_image = noise, latent_image

        steps = len(sigmas) - 1
        x = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), self.noise == "unit")
        for step in range(steps):
            x0 = denoise(x, sigmas[step].expand(x.shape[0]), denoise_mask, **extra_args)
            if callback is not None:
                callback(step, x0, x, steps)
            if step + 1 < steps:
                x = self._next(sampling, x, x0, sigmas, step)
        if self.steps != "tcd":
            return x0
        x = tcd_step(x, x0, sigmas[-2], sampling.sigma_min.to(x))
        return x if denoise_mask is None else x * denoise_mask + latent_image * (1.0 - denoise_mask)

    def _next(self, sampling: Any, x: torch.Tensor, x0: torch.Tensor, sigmas: torch.Tensor, step: int) -> torch.Tensor:
        """x of the next step, (B, C, h, w)."""
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        if self.steps == "euler":
            return euler_step(x, x0, sigma, sigma_next)
        noise = self.noise_of(step + 1).to(x)
        if self.steps == "tcd":
            return tcd_step(x, x0, sigma, sampling.sigma_min.to(x), sigma_next, noise)
        return sampling.noise_scaling(sigma_next, noise, x0)


def _as_the_host_keeps(samples: torch.Tensor) -> torch.Tensor:
    """On the device and in the dtype in which the host's KSampler hands latents from node to node."""
    management = comfy.model_management
    # Older hosts have no such choice, and keep the fp32 that sampling ends in.
    dtype = management.intermediate_dtype() if hasattr(management, "intermediate_dtype") else samples.dtype
    return samples.to(management.intermediate_device(), dtype)


def _say(speaker: str, patcher: ModelPatcher, chosen: Preset | None, timesteps: Sequence[int]) -> None:
    """Tell what is done, by whose word, and what may be a mistake; a warning only where it most likely is one."""
    recipe = recipe_of(patcher)
    if chosen is None:
        whose = "the file's recipe" if recipe else "auto, as the model brings no recipe"
        advice = "" if recipe else ". If the picture is noise or a smear, choose the model's preset"
    else:
        whose = f"preset {chosen.name}"
        advice = ", in place of the file's own recipe, which auto takes" if recipe else ""
    at = ", ".join(map(str, timesteps))
    logging.info("%s: %s at timestep %s, by %s%s", speaker, _count(timesteps), at, whose, advice)
    if len(timesteps) == 1 and timesteps[0] < SMALLEST_LIKELY_TIMESTEP:
        logging.warning(
            "%s: timesteps %s is one step at timestep %s, where hardly any noise is left, and not a number of steps. "
            'Leave timesteps at auto and choose the model\'s preset, or type each: "999, 749, 499, 249" are four steps',
            speaker,
            at,
            at,
        )


def _warn_of_size(speaker: str, patcher: ModelPatcher, samples: torch.Tensor) -> None:
    """Tell of a picture twice as large as what a file's model has learnt to draw, or half as large."""
    metadata = get_metadata(patcher)
    if not isinstance(metadata, Metadata) or not isinstance(side := metadata.unet.get("sample_size"), int):
        return
    height, width = samples.shape[-2:]
    if max(height, width) >= 2 * side or 2 * min(height, width) <= side:
        scale = 8 if metadata.vae is None else 2 ** (len(metadata.vae["block_out_channels"]) - 1)
        logging.warning(
            "%s: this model draws %d x %d pixels and is asked for %d x %d, where its pictures may be nothing but "
            "noise: set the Empty Latent Image to its size",
            speaker,
            *(scale * length for length in (side, side, width, height)),
        )


def _count(timesteps: Sequence[int]) -> str:
    return "1 step" if len(timesteps) == 1 else f"{len(timesteps)} steps"


def recipe_of(patcher: ModelPatcher) -> OneStepRecipe | None:
    metadata = get_metadata(patcher)
    return metadata.recipe if metadata else None
