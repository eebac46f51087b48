"""One-step and few-step sampling in the host: with the noise that the model was trained on, positive prompt only.

Dimensions: B batch rows, C latent channels, h x w latent height and width.

The host keeps x in variance-exploding form, x = x0 + sigma eps with sigma = sigma_t / alpha_t; the network's input is
x / sqrt(1 + sigma^2) = alpha_t x0 + sigma_t eps. The host's samplers start from sigma * noise, which has unit variance
at the last timestep only (0.76 at t = 399), but most one-step students need noise of unit variance at their own T.
A rectified flow's x is (1 - sigma) x0 + sigma eps and is not scaled for the network.
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

from ..formats.architecture import vae_factor
from ..formats.checkpoint import Metadata, OneStepRecipe
from ..one_step import SMALLEST_LIKELY_TIMESTEP, euler_step, is_auto, parse_timesteps, tcd_step
from ..presets import AUTO, Noise, Preset, Steps, find_preset
from .front_end import show_text
from .loading.attachment import get_metadata
from .loading.model_sampling import RectifiedFlow, last_timestep, sigma_at, with_preset
from .nasa.sampling_run import NODE_NAME_ATTRIBUTE

Latent = dict[str, Any]
# SplitMix64's increment: keeps the seeds of later steps far from seeds that people type.
_SEED_STEP = 0x9E3779B97F4A7C15

Callback = Callable[[int, torch.Tensor, torch.Tensor, int], None]
"""Called by the host's samplers after each step with its number, x0, x and the number of steps."""
NoiseOf = Callable[[int], torch.Tensor]
"""Noise of unit variance for the step of this number, (B, C, h, w)."""


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """How to sample a model with its positive prompt only.

    patcher: the model, with the noise schedule to use.
    sigmas: of all steps, then 0.
    sampler: makes the host's sampler, given the noise of each step.
    is_patched: whether `patcher` has a temporary schedule, to be removed from the model after sampling.
    node_name: the node named in log lines about NASA; "" for NASA Apply.
    """

    patcher: ModelPatcher
    sigmas: torch.Tensor
    sampler: Callable[[NoiseOf], comfy.samplers.Sampler]
    is_patched: bool = False
    node_name: str = ""

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1


def one_step(
    patcher: ModelPatcher, positive: list, latent: Latent, *, seed: int, timesteps: str, preset: str = AUTO
) -> Latent:
    """Sample x0 from noise at each timestep in turn; arguments as in `plan_one_step` and `sample_plan`."""
    return sample_plan(plan_one_step(patcher, timesteps=timesteps, preset=preset), positive, latent, seed=seed)


def plan_one_step(patcher: ModelPatcher, *, timesteps: str, preset: str = AUTO, node_name: str = "") -> SamplingPlan:
    """The plan for sampling a one-step or few-step model.

    Args:
        timesteps: text for `parse_timesteps`; `auto` means the preset's timesteps.
        preset: a name of `presets.PRESETS`; `auto` means the checkpoint's recipe, else the last timestep, with the
            model's own prediction type.
        node_name: the node named in log lines; "" for One-Step Sampler.

    Raises:
        ValueError: a preset for other models; timesteps that cannot be parsed, or that the model's noise schedule
            lacks.
    """
    chosen, given = find_preset(preset), patcher
    if chosen is not None:
        patcher = with_preset(patcher, chosen)
    recipe = chosen or recipe_of(patcher)
    sampling = patcher.get_model_object("model_sampling")
    last = last_timestep(sampling)
    at = parse_timesteps(timesteps, auto=recipe.timesteps if recipe else (last,), num_train_timesteps=last + 1)
    sigmas = torch.tensor([sigma_at(sampling, t) for t in at] + [0.0])
    steps, noise = (recipe.steps, recipe.noise) if recipe else ("consistency", "unit")
    said = _log_plan(node_name or "One-Step Sampler", patcher, chosen, at, given=not is_auto(timesteps))
    if recipe is None and is_auto(timesteps) and not node_name:  # nobody chose how to sample
        show_text(said)
    if steps == "tcd" and isinstance(sampling, RectifiedFlow):
        raise ValueError("this is a flow model, which TCD's steps cannot sample; expected steps euler or consistency")
    return SamplingPlan(
        patcher=patcher,
        sigmas=sigmas,
        sampler=lambda noise_of: OneStepSampler(noise_of, noise=noise, steps=steps),
        is_patched=patcher is not given,
        node_name=node_name,
    )


def sample_plan(
    plan: SamplingPlan, positive: list, latent: Latent, *, seed: int, callback: Callback | None = None
) -> Latent:
    """Sample with the positive prompt only, like the host's BasicGuider.

    Args:
        latent: sets size and batch; its content is kept only where its noise mask is 0.
        seed: of the noise, modulo 2^64; with a `batch_index`, a row's noise does not depend on the other rows.
        callback: called after each step; None for the host's progress bar and preview.
    """
    patcher = plan.patcher
    samples = comfy.sample.fix_empty_latent_channels(patcher, latent["samples"], latent.get("downscale_ratio_spacial"))
    _warn_about_size(plan.node_name or "One-Step Sampler", patcher, samples)
    batch_index = latent.get("batch_index")
    seed %= 2**64

    def noise_of(step: int) -> torch.Tensor:
        return comfy.sample.prepare_noise(samples, (seed + step * _SEED_STEP) % 2**64, batch_index)

    guider = comfy.samplers.CFGGuider(patcher)
    guider.inner_set_conds({"positive": positive})
    if plan.node_name:
        setattr(guider, NODE_NAME_ATTRIBUTE, plan.node_name)
    try:
        x0 = guider.sample(
            noise_of(0),
            samples,
            plan.sampler(noise_of),
            plan.sigmas,
            denoise_mask=latent.get("noise_mask"),
            callback=callback or latent_preview.prepare_callback(patcher, plan.steps),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    finally:
        if plan.is_patched:  # the host would restore the model's own schedule only when it is used again
            patcher.unpatch_model(unpatch_weights=False)
    out = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio_")}
    return {**out, "samples": _to_intermediate(x0)}


class OneStepSampler(comfy.samplers.Sampler):
    """Predicts x0 at each sigma; between two of them it takes the steps explained in `presets`."""

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
        if denoise_mask is None:
            return x
        if change := extra_args.get("model_options", {}).get("denoise_mask_function"):  # as the host does for x0
            options = {"model": model_wrap, "sigmas": sigmas}
            denoise_mask = change(sigmas[-2].expand(x.shape[0]), denoise_mask, extra_options=options)
        return x * denoise_mask + latent_image * (1.0 - denoise_mask)

    def _next(self, sampling: Any, x: torch.Tensor, x0: torch.Tensor, sigmas: torch.Tensor, step: int) -> torch.Tensor:
        """x of the next step, (B, C, h, w)."""
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        if self.steps == "euler":
            return euler_step(x, x0, sigma, sigma_next)
        noise = self.noise_of(step + 1).to(x)
        if self.steps == "tcd":
            return tcd_step(x, x0, sigma, sampling.sigma_min.to(x), sigma_next, noise)
        return sampling.noise_scaling(sigma_next, noise, x0)


def _to_intermediate(samples: torch.Tensor) -> torch.Tensor:
    """Move latents to the device and dtype that the host's KSampler passes between nodes."""
    management = comfy.model_management
    # Older hosts have no such setting and keep the result's fp32.
    dtype = management.intermediate_dtype() if hasattr(management, "intermediate_dtype") else samples.dtype
    return samples.to(management.intermediate_device(), dtype)


def _log_plan(
    node_name: str, patcher: ModelPatcher, chosen: Preset | None, timesteps: Sequence[int], *, given: bool
) -> str:
    """Log the timesteps and where they come from, and return that; warn if they are probably a mistake."""
    recipe = recipe_of(patcher)
    if chosen is None:
        own = "as given; the model has no recipe" if given else "by auto, as the model has no recipe"
        source = "by the file's recipe" if recipe else own
        advice = "" if recipe else ". If the picture is noise or blurred, choose the model's preset"
    else:
        source = f"by preset {chosen.name}"
        advice = ", instead of the file's own recipe, which auto uses" if recipe else ""
    at, count = ", ".join(map(str, timesteps)), "1 step" if len(timesteps) == 1 else f"{len(timesteps)} steps"
    said = f"{count} at timestep {at}, {source}{advice}"
    logging.info("%s: %s", node_name, said)
    if len(timesteps) == 1 and timesteps[0] < SMALLEST_LIKELY_TIMESTEP:
        logging.warning(
            "%s: timesteps %s is one step at timestep %s, where almost no noise is left; it is not a number of steps. "
            'Set timesteps to auto and choose the model\'s preset, or list them: "999, 749, 499, 249" are four steps',
            node_name,
            at,
            at,
        )
    return said


def _warn_about_size(node_name: str, patcher: ModelPatcher, samples: torch.Tensor) -> None:
    """Warn if the picture is at least twice as large, or at most half as large, as the model's training size."""
    metadata = get_metadata(patcher)
    if not isinstance(metadata, Metadata) or not isinstance(side := metadata.unet.get("sample_size"), int):
        return
    height, width = samples.shape[-2:]
    if max(height, width) >= 2 * side or 2 * min(height, width) <= side:
        scale = 8 if metadata.vae is None else vae_factor(metadata.vae)
        logging.warning(
            "%s: this model was trained for %d x %d pixels, but the latent has %d x %d, where pictures may be only "
            "noise: set the Empty Latent Image to the model's size",
            node_name,
            *(scale * length for length in (side, side, width, height)),
        )


def recipe_of(patcher: ModelPatcher) -> OneStepRecipe | None:
    """The recipe in the file's metadata, or in that of the LoRA on it."""
    metadata = get_metadata(patcher)
    return metadata.recipe if metadata else None
