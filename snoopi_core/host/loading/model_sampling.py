"""Make the host's model_sampling objects: prediction type and noise schedule of a checkpoint or a preset."""

from __future__ import annotations

import math

import comfy.model_base
import comfy.model_sampling
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher

from ...formats.checkpoint import Metadata, Schedule
from ...presets import ARCHITECTURES, AUTO, Architecture, Preset, presets_for


class RectifiedFlow(comfy.model_sampling.CONST):
    """InstaFlow's x_t = (1 - t) x0 + t z with v = x0 - z; the host's own flow models predict z - x0."""

    def calculate_denoised(
        self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor
    ) -> torch.Tensor:
        return super().calculate_denoised(sigma, -model_output, model_input)


# The host names the schedules by the curve of sqrt(beta), diffusers by the curve of beta.
_BETA_SCHEDULES = {"scaled_linear": "linear", "linear": "sqrt_linear"}
_PREDICTIONS = {
    "epsilon": comfy.model_sampling.EPS,
    "v_prediction": comfy.model_sampling.V_PREDICTION,
    "sample": comfy.model_sampling.X0,
    "flow": RectifiedFlow,
}
_Discrete = comfy.model_sampling.ModelSamplingDiscrete


def sampling_settings(schedule: Schedule) -> dict[str, str | float | int]:
    """The host's `sampling_settings`."""
    return {
        "beta_schedule": _BETA_SCHEDULES[schedule.beta_schedule],
        "linear_start": schedule.beta_start,
        "linear_end": schedule.beta_end,
        "timesteps": schedule.num_train_timesteps,
    }


def model_sampling(metadata: Metadata, model_config: object) -> torch.nn.Module:
    """The file's schedule, with the recipe's noise level at its first timestep.

    Raises:
        ValueError: the recipe starts after the last timestep, or has alpha_T = 0, where only flow models have an x0.
    """
    sampling = _new_sampling(metadata.prediction_type, model_config)
    recipe = metadata.recipe
    if recipe is None:
        return sampling
    first, last = recipe.timesteps[0], last_timestep(sampling)
    if first > last:
        raise ValueError(f"the recipe starts at timestep {first}, expected at most {last}, the schedule's last")
    if metadata.prediction_type != "flow":
        if recipe.alpha_T == 0.0:
            raise ValueError("the recipe's alpha_T is 0, which only flow models have; expected a number above 0")
        _set_noise_level(sampling, first, recipe.sigma_T / recipe.alpha_T)
    return sampling


def with_preset(patcher: ModelPatcher, preset: Preset) -> ModelPatcher:
    """A clone with the preset's prediction type and noise level, where it sets them; else `patcher` itself.

    The rest of the model's schedule is unchanged.

    Raises:
        ValueError: the preset is for other models, or another node has replaced the model's schedule.
    """
    _check_architecture(patcher.model, preset)
    current = patcher.get_model_object("model_sampling")
    is_usual = _is_standard(current) or isinstance(current, RectifiedFlow)
    if is_usual and preset.alpha_T_squared is None and preset.prediction_type in (None, _prediction_type(current)):
        return patcher
    if not _is_standard(current):
        raise ValueError(
            f"preset {preset.name!r} cannot change this model's schedule ({_base_names(current)}). A ModelSampling "
            "node before this one may have replaced it: remove that node, the preset sets the schedule itself"
        )
    sampling = _new_sampling(preset.prediction_type, patcher.model.model_config)
    if preset.prediction_type != "flow":
        sampling.set_sigmas(current.sigmas.clone())
        if preset.alpha_T_squared is not None:
            power = preset.alpha_T_squared
            _set_noise_level(sampling, preset.timesteps[0], math.sqrt((1.0 - power) / power))
    clone = patcher.clone()
    clone.add_object_patch("model_sampling", sampling)
    return clone


def last_timestep(sampling: torch.nn.Module) -> int:
    """The timestep of pure noise: 999 of a thousand, but 1000 for flow models."""
    if isinstance(sampling, RectifiedFlow):
        return 1000
    return getattr(sampling, "num_timesteps", 1000) - 1


def sigma_at(sampling: torch.nn.Module, timestep: int) -> float:
    """The host's sigma at an integer timestep of the model's schedule: sigma_t / alpha_t, or t/1000 for flow models.

    Raises:
        ValueError: the model does not have this timestep, or has no timesteps.
    """
    if not isinstance(sampling, comfy.model_sampling.EPS | RectifiedFlow):
        raise ValueError(
            f"One-Step Sampler does not support this model's kind of prediction ({_base_names(sampling)}); expected "
            "epsilon, v or x0 prediction on a variance-preserving schedule, or InstaFlow's flow with its preset"
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


def _new_sampling(prediction_type: str, model_config: object) -> torch.nn.Module:
    is_flow = prediction_type == "flow"
    schedule = comfy.model_sampling.ModelSamplingDiscreteFlow if is_flow else _Discrete

    class CheckpointSampling(schedule, _PREDICTIONS[prediction_type]):
        pass

    return CheckpointSampling(None if is_flow else model_config)


def _set_noise_level(sampling: _Discrete, timestep: int, sigma: float) -> None:
    """Set the sigma of one timestep: students may be trained with an alpha_T that their schedule does not have."""
    if not math.isclose(float(sampling.sigmas[timestep]), sigma, rel_tol=1e-6):
        sigmas = sampling.sigmas.clone()
        sigmas[timestep] = sigma
        sampling.set_sigmas(sigmas)


def _prediction_type(sampling: torch.nn.Module) -> str | None:
    """The prediction type if the model has a standard schedule; None for those of other nodes and models."""
    if not (isinstance(sampling, RectifiedFlow) or _is_standard(sampling)):
        return None
    bases = type(sampling).__bases__
    return next((name for name, kind in _PREDICTIONS.items() if kind in bases), None)


def _is_standard(sampling: torch.nn.Module) -> bool:
    """Whether timesteps map to noise levels as in the host's ModelSamplingDiscrete."""
    kind = type(sampling)
    return issubclass(kind, _Discrete) and (kind.sigma, kind.timestep) == (_Discrete.sigma, _Discrete.timestep)


def _base_names(sampling: torch.nn.Module) -> str:
    return ", ".join(base.__name__ for base in type(sampling).__bases__)


def _check_architecture(model: comfy.model_base.BaseModel, preset: Preset) -> None:
    architecture = _architecture(model)
    if architecture in preset.architectures:
        return
    meant = " and ".join(preset.architectures)
    if architecture is None:
        available = f"for this model there is none, only for {', '.join(ARCHITECTURES)}"
    else:
        available = f"presets for it: {'; '.join(presets_for(architecture))}"
    raise ValueError(
        f"preset {preset.name!r} is for {meant} models, this model is {architecture or type(model).__name__}; "
        f'{available}. Or choose "{AUTO}" and type the timesteps'
    )


def _architecture(model: comfy.model_base.BaseModel) -> Architecture | None:
    if isinstance(model, comfy.model_base.PixArt):
        return "PixArt"
    if isinstance(model, comfy.model_base.SDXL):
        return "SDXL"
    # Others with this UNet, such as SDXL's refiner and the upscalers, have more inputs than the prompt (adm_channels).
    return "SD1/SD2" if isinstance(model.diffusion_model, UNetModel) and not model.adm_channels else None
