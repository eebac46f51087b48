"""How a student is sampled: timesteps and noise levels, from its file, by its schedule or by a preset."""

from __future__ import annotations

from dataclasses import replace

from snoopi_core.formats.checkpoint import OneStepRecipe
from snoopi_core.one_step import Step
from snoopi_core.presets import Architecture, Preset, presets_for
from training.models.backbone import Backbone

LAST_TIMESTEP = 999
_ARCHITECTURES: dict[str, Architecture] = {"unet": "SD1/SD2", "sdxl": "SDXL", "pixart": "PixArt"}  # by family


def sampling_recipe(model: Backbone, timesteps: tuple[int, ...] = ()) -> OneStepRecipe:
    """The recipe for `timesteps`; without them the file's, else one step at 999.

    As in One-Step Sampler, given timesteps keep the file's noise, kind of steps, and noise level at its own timestep.

    Raises:
        ValueError: a timestep is past the schedule, or (from pydantic) they are not strictly decreasing.
    """
    found = model.recipe
    timesteps = timesteps or (found.timesteps if found else (LAST_TIMESTEP,))
    kept = {"noise": found.noise, "steps": found.steps} if found else {}
    if found and timesteps[0] == found.timesteps[0]:
        return OneStepRecipe(timesteps=timesteps, alpha_T=found.alpha_T, sigma_T=found.sigma_T, **kept)
    power = alpha_squared(model, timesteps[0])
    return OneStepRecipe(timesteps=timesteps, alpha_T=power**0.5, sigma_T=(1 - power) ** 0.5, **kept)


def recipe_steps(model: Backbone, recipe: OneStepRecipe) -> tuple[Step, ...]:
    """The steps of `recipe`: its own noise level at the first timestep, the model's schedule at the others.

    Raises:
        ValueError: a later timestep is past the model's schedule.
    """
    powers = ((t, alpha_squared(model, t)) for t in recipe.timesteps[1:])
    later = (Step(t, power**0.5, (1 - power) ** 0.5) for t, power in powers)
    return (Step(recipe.timesteps[0], recipe.alpha_T, recipe.sigma_T), *later)


def with_preset(model: Backbone, preset: Preset) -> Backbone:
    """`model` with a preset's recipe and prediction type, which its files may not state.

    Raises:
        ValueError: the preset is for other models, or takes steps that are not supported here.
    """
    architecture = _ARCHITECTURES[model.family.name]
    if architecture not in preset.architectures:
        raise ValueError(
            f"preset {preset.name!r} is for {' and '.join(preset.architectures)}, the model is {architecture}; "
            f"presets for it: {'; '.join(presets_for(architecture))}"
        )
    if preset.steps == "tcd":
        raise ValueError(
            f"preset {preset.name!r} takes {len(preset.timesteps)} {preset.steps} step(s), which are not supported here"
        )
    flow = preset.prediction_type == "flow"
    power = 0.0 if flow else preset.alpha_T_squared or alpha_squared(model, preset.timesteps[0])
    recipe = OneStepRecipe(
        timesteps=preset.timesteps,
        alpha_T=power**0.5,
        sigma_T=(1 - power) ** 0.5,
        noise=preset.noise,
        steps=preset.steps,
    )
    return replace(model, recipe=recipe, prediction_type=preset.prediction_type or model.prediction_type)


def alpha_squared(model: Backbone, t: int) -> float:
    """alpha_t^2 by the model's schedule. Raises: ValueError, if t is past its end."""
    powers = model.alphas_cumprod()
    if t >= len(powers):
        raise ValueError(f"timestep {t} is past the model's schedule, which ends at {len(powers) - 1}")
    return powers[t].item()
