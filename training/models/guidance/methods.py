"""A negative prompt in few steps, by NASA and by what it is compared with.

Dimensions: B images, C latent channels, h x w latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from snoopi_core.formats.checkpoint import OneStepRecipe
from snoopi_core.presets import Architecture, Preset, presets_for
from training.models.backbone import Backbone
from training.models.guidance.nag import NagProcessor
from training.models.guidance.nasa import NasaProcessor, processed
from training.models.guidance.orthogonal import OrthogonalProcessor
from training.models.guidance.vsf import VsfProcessor
from training.models.sampling import one_step_x0
from training.models.text_embeddings import TextEmbeddings

LAST_TIMESTEP = 999
METHODS: dict[str, str] = {
    "none": "the negative is not used",
    "nasa": "Z+ - strength Z- in every cross-attention",
    "cfg": "x0(neg) + strength (x0(pos) - x0(neg)), 1 being no guidance",
    "embeddings": "the text embeddings e+ - strength e-",
    "nag": "normalized attention guidance, strength being phi",
    "vsf": "value sign flip: one softmax over both prompts, the negative's values times -strength",
    "orthogonal": "as nasa, with the part of Z- at right angles to Z+ alone",
    "teacher": "so many steps with the null prompt in CFG, at this scale, the negative not being used",
    "teacher-negative": "the same with the negative in place of the null prompt",
}
_MANY_STEPS = ("teacher", "teacher-negative")
_KINDS: dict[str, Architecture] = {"unet": "SD1/SD2", "pixart": "PixArt"}  # by family
_ATTENTION: dict[str, type[NasaProcessor]] = {
    "nasa": NasaProcessor,
    "nag": NagProcessor,
    "vsf": VsfProcessor,
    "orthogonal": OrthogonalProcessor,
}
Predict = Callable[[TextEmbeddings], torch.Tensor]  # x0 (B, C, h, w) of B prompts
Noise = Callable[[int], torch.Tensor]  # of the step with that number, (B, C, h, w)


@dataclass(frozen=True)
class Method:
    """How a negative prompt acts, and how strongly; on the command line "none", NAME:STRENGTH such as "nasa:0.3", or
    "teacher:STEPS:SCALE", many steps instead of the student's."""

    name: str
    strength: float = 0.0
    steps: int = 0

    @classmethod
    def parse(cls, text: str) -> Method:
        """Raises ValueError for anything else; says what there is."""
        name, *numbers = text.strip().split(":")
        if name not in METHODS or len(numbers) != _form(name).count(":"):
            known = "; ".join(f"{_form(key)} ({what})" for key, what in METHODS.items())
            raise ValueError(f"method {text!r} is not known; available: {known}")
        if not numbers:
            return cls(name)
        try:
            strength, steps = float(numbers[-1]), int(numbers[0]) if len(numbers) > 1 else 0
        except ValueError:
            strength, steps = float("nan"), 0
        if not 0 <= strength < float("inf") or (len(numbers) > 1 and steps < 1):
            if name in _MANY_STEPS:
                raise ValueError(f"method {text!r}: expected steps from 1 up and a scale from 0 up, as {name}:25:7.5")
            raise ValueError(f"method {text!r}: its strength must be a number from 0 up, such as {name}:0.3")
        return cls(name, strength, steps)

    def __str__(self) -> str:
        return ":".join([self.name, *([str(self.steps)] if self.steps else [])]) + (
            "" if self.name == "none" else f":{self.strength:g}"
        )

    @property
    def many_steps(self) -> bool:
        """Whether it samples as a teacher does."""
        return self.name in _MANY_STEPS

    def plain(self) -> Method:
        """The same without the negative, to compare with."""
        return replace(self, name="teacher") if self.many_steps else Method("none")


def _form(name: str) -> str:
    if name in _MANY_STEPS:
        return f"{name}:STEPS:SCALE"
    return name if name == "none" else f"{name}:STRENGTH"


def sampling_recipe(model: Backbone, timesteps: tuple[int, ...] = ()) -> OneStepRecipe:
    """How a student is sampled: at `timesteps` by its schedule, else as its file says, else once at 999.

    Raises:
        ValueError: the schedule ends before, or (pydantic's) the timesteps do not fall.
    """
    if not timesteps and model.recipe is not None:
        return model.recipe
    timesteps = timesteps or (LAST_TIMESTEP,)
    power = _power(model, timesteps[0])
    return OneStepRecipe(timesteps=timesteps, alpha_T=power**0.5, sigma_T=(1 - power) ** 0.5)


def with_preset(model: Backbone, preset: Preset) -> Backbone:
    """A model that is sampled as a published one: its recipe and its prediction type, which its files may not say.

    Raises:
        ValueError: the preset is for other models, or takes steps that are not supported here.
    """
    kind = _KINDS[model.family.name]
    if kind not in preset.architectures:
        raise ValueError(
            f"preset {preset.name!r} is for {' and '.join(preset.architectures)}, the model is {kind}; presets for it: "
            f"{', '.join(presets_for(kind))}"
        )
    if preset.steps == "tcd" or (len(preset.timesteps) > 1 and preset.steps != "consistency"):
        raise ValueError(
            f"preset {preset.name!r} takes {len(preset.timesteps)} {preset.steps} step(s), which are not supported here"
        )
    flow = preset.prediction_type == "flow"
    power = 0.0 if flow else preset.alpha_T_squared or _power(model, preset.timesteps[0])
    recipe = OneStepRecipe(
        timesteps=preset.timesteps,
        alpha_T=power**0.5,
        sigma_T=(1 - power) ** 0.5,
        noise=preset.noise,
        steps=preset.steps,
    )
    return replace(model, recipe=recipe, prediction_type=preset.prediction_type)


@torch.no_grad()
def steered_x0(
    model: Backbone,
    method: Method,
    positive: TextEmbeddings,
    negative: TextEmbeddings | None,
    recipe: OneStepRecipe,
    noise: Noise,
) -> torch.Tensor:
    """x0 (B, C, h, w) fp32 by `recipe`, from one step to the next by fresh noise: x_t' = alpha_t' x0 + sigma_t' z'.

    Args:
        positive: of B rows.
        negative: of one row or B; None for no negative, whatever the method.
        noise: z, and z' of the later steps, on the network's device.

    Raises:
        ValueError: the recipe goes from step to step in a way that is not supported.
    """
    if len(recipe.timesteps) > 1 and recipe.steps != "consistency":
        raise ValueError(f"steps of kind {recipe.steps!r} are not supported here; supported: consistency")
    x0 = None
    for number, t in enumerate(recipe.timesteps):
        z = noise(number)
        if x0 is None:
            alpha, sigma = recipe.alpha_T, recipe.sigma_T
            x = z * sigma if recipe.noise == "scheduled" else z
        else:
            power = _power(model, t)
            alpha, sigma = power**0.5, (1 - power) ** 0.5
            x = alpha * x0 + sigma * z
        predict = partial(_x0, model, x, t, alpha, sigma)
        x0 = _steered(model, method, predict, positive, negative)
    assert x0 is not None  # a recipe has a timestep
    return x0


def _x0(model: Backbone, x: torch.Tensor, t: int, alpha: float, sigma: float, text: TextEmbeddings) -> torch.Tensor:
    if model.prediction_type == "flow":  # v = x0 - z, and x is z at the only step that flows take here
        return x + model.call(model.network, x, torch.full((len(x),), t, device=x.device), text).float()
    return one_step_x0(model, model.network, text, x, timestep=t, alpha_T=alpha, sigma_T=sigma)


def _steered(
    model: Backbone, method: Method, predict: Predict, positive: TextEmbeddings, negative: TextEmbeddings | None
) -> torch.Tensor:
    """x0 at one timestep."""
    if method.name not in METHODS or method.many_steps:
        raise ValueError(f"method {method.name!r} steers no step; available: {', '.join(METHODS)}")
    if negative is None or method.name == "none":
        return predict(positive)
    if method.name in _ATTENTION:
        with processed(model.network, _ATTENTION[method.name](negative, method.strength)):
            return predict(positive)
    if method.name == "cfg":
        base = predict(negative if len(negative) == len(positive) else negative.expand(len(positive)))
        return base + method.strength * (predict(positive) - base)
    return predict(TextEmbeddings(states=positive.states - method.strength * negative.states, mask=positive.mask))


def _power(model: Backbone, t: int) -> float:
    """alpha_t^2 by the model's schedule."""
    powers = model.alphas_cumprod()
    if t >= len(powers):
        raise ValueError(f"timestep {t} is past the model's schedule, which ends at {len(powers) - 1}")
    return powers[t].item()
