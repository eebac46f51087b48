"""The host's model_sampling objects: prediction type and noise schedule of a checkpoint, or of a preset."""

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
    """InstaFlow's x_t = (1 - t) x0 + t z with v = x0 - z; flow models of the host's own predict z - x0."""

    def calculate_denoised(
        self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor
    ) -> torch.Tensor:
        return super().calculate_denoised(sigma, -model_output, model_input)


# The host names the curves by how sqrt(beta) goes, diffusers by how beta does.
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
        ValueError: the recipe starts past the last timestep, or from noise alone, which has no x0 but for flow models.
    """
    sampling = _new_sampling(metadata.prediction_type, model_config)
    recipe = metadata.recipe
    if recipe is None:
        return sampling
    first, last = recipe.timesteps[0], last_timestep(sampling)
    if first > last:
        raise ValueError(f"the recipe starts at timestep {first}, the schedule's last is {last}")
    if metadata.prediction_type != "flow":
        if recipe.alpha_T == 0.0:
            raise ValueError("the recipe's alpha_T is 0, which only flow models have; expected a number above 0")
        _set_noise_level(sampling, first, recipe.sigma_T / recipe.alpha_T)
    return sampling


def with_preset(patcher: ModelPatcher, preset: Preset) -> ModelPatcher:
    """A clone with the preset's prediction type and noise level; `patcher` itself where it has them already.

    The rest of the model's schedule stays as it is.

    Raises:
        ValueError: the preset is for other models, or another node has replaced the model's schedule.
    """
    _check_architecture(patcher.model, preset)
    current = patcher.get_model_object("model_sampling")
    if preset.alpha_T_squared is None and _prediction_type(current) == preset.prediction_type:
        return patcher
    if not _is_plain(current):
        raise ValueError(
            f"preset {preset.name!r} cannot change this model's schedule ({_kinds(current)}). A ModelSampling node "
            "before this one may have replaced it: remove that node, a preset brings what it needs"
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
    """The timestep of pure noise: 999 of a thousand, but 1000 for flow models, whose time runs to its end."""
    if isinstance(sampling, RectifiedFlow):
        return 1000
    return getattr(sampling, "num_timesteps", 1000) - 1


def sigma_of(sampling: torch.nn.Module, timestep: int) -> float:
    """The host's sigma at an integer timestep, by the model's own schedule: sigma_t / alpha_t, for flow models t/1000.

    Raises:
        ValueError: the model has no such timestep, or none at all.
    """
    if not isinstance(sampling, comfy.model_sampling.EPS | RectifiedFlow):
        raise ValueError(
            f"One-Step Sampler does not know this model's kind of prediction ({_kinds(sampling)}); "
            "it takes epsilon, v and x0 predictions on a variance-preserving schedule, "
            "and InstaFlow's flow through its preset"
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
    """Students may be trained with alpha_T, sigma_T that their schedule does not have; then the file is right."""
    if not math.isclose(float(sampling.sigmas[timestep]), sigma, rel_tol=1e-6):
        sigmas = sampling.sigmas.clone()
        sigmas[timestep] = sigma
        sampling.set_sigmas(sigmas)


def _prediction_type(sampling: torch.nn.Module) -> str | None:
    """Of a model with a schedule like a checkpoint's; None for what other nodes and models make of it."""
    if not (isinstance(sampling, RectifiedFlow) or _is_plain(sampling)):
        return None
    bases = type(sampling).__bases__
    return next((name for name, kind in _PREDICTIONS.items() if kind in bases), None)


def _is_plain(sampling: torch.nn.Module) -> bool:
    """Whether timestep and noise level belong together as in the host's ModelSamplingDiscrete itself."""
    kind = type(sampling)
    return issubclass(kind, _Discrete) and (kind.sigma, kind.timestep) == (_Discrete.sigma, _Discrete.timestep)


def _kinds(sampling: torch.nn.Module) -> str:
    return ", ".join(base.__name__ for base in type(sampling).__bases__)


def _check_architecture(model: comfy.model_base.BaseModel, preset: Preset) -> None:
    architecture = _architecture(model)
    if architecture in preset.architectures:
        return
    meant = " and ".join(preset.architectures)
    if architecture is None:
        available = f"for this model there is none, only for {', '.join(ARCHITECTURES)}"
    else:
        available = f"presets for it: {', '.join(presets_for(architecture))}"
    raise ValueError(
        f"preset {preset.name!r} is for {meant} models, this model is {architecture or type(model).__name__}; "
        f'{available}. Or choose "{AUTO}" and type the timesteps'
    )


def _architecture(model: comfy.model_base.BaseModel) -> Architecture | None:
    if isinstance(model, comfy.model_base.PixArt):
        return "PixArt"
    if isinstance(model, comfy.model_base.SDXL):
        return "SDXL"
    # What else has this UNet, such as SDXL's refiner and the upscalers, tells it more than the prompt.
    return "SD1/SD2" if isinstance(model.diffusion_model, UNetModel) and not model.adm_channels else None
