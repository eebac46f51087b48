"""The host's model_sampling object for a checkpoint: its prediction type and noise schedule."""

from __future__ import annotations

import math

import comfy.model_sampling
import torch

from ..checkpoint import Metadata, OneStepRecipe, Schedule

# The host names the curves by how sqrt(beta) goes, diffusers by how beta does.
_BETA_SCHEDULES = {"scaled_linear": "linear", "linear": "sqrt_linear"}
_PREDICTIONS = {
    "epsilon": comfy.model_sampling.EPS,
    "v_prediction": comfy.model_sampling.V_PREDICTION,
    "sample": comfy.model_sampling.X0,
}


def sampling_settings(schedule: Schedule) -> dict[str, str | float | int]:
    """The host's `sampling_settings`."""
    return {
        "beta_schedule": _BETA_SCHEDULES[schedule.beta_schedule],
        "linear_start": schedule.beta_start,
        "linear_end": schedule.beta_end,
        "timesteps": schedule.num_train_timesteps,
    }


def model_sampling(metadata: Metadata, model_config: object) -> torch.nn.Module:
    """The file's schedule, with the recipe's noise level at its first timestep."""

    class CheckpointSampling(comfy.model_sampling.ModelSamplingDiscrete, _PREDICTIONS[metadata.prediction_type]):
        pass

    sampling = CheckpointSampling(model_config)
    if metadata.recipe is not None:
        _set_noise_level(sampling, metadata.recipe)
    return sampling


def _set_noise_level(sampling: comfy.model_sampling.ModelSamplingDiscrete, recipe: OneStepRecipe) -> None:
    """Students may be trained with alpha_T, sigma_T that their schedule does not have; then the file is right."""
    timestep = recipe.timesteps[0]
    sigma = recipe.sigma_T / recipe.alpha_T
    if not math.isclose(float(sampling.sigmas[timestep]), sigma, rel_tol=1e-6):
        sigmas = sampling.sigmas.clone()
        sigmas[timestep] = sigma
        sampling.set_sigmas(sigmas)
