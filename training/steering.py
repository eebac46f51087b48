"""A negative prompt in few steps, by NASA and by what it is compared with.

Dimensions: B images, C latent channels, h x w latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from snoopi_core.checkpoint import OneStepRecipe
from training.backbone import Backbone
from training.diffusers_nag import nag
from training.diffusers_nasa import nasa
from training.diffusers_orthogonal import orthogonal
from training.diffusers_vsf import vsf
from training.sampling import one_step_x0
from training.text import Text

LAST_TIMESTEP = 999
METHODS: dict[str, str] = {
    "none": "the negative is not used",
    "nasa": "Z+ - strength Z- in every cross-attention",
    "cfg": "x0(neg) + strength (x0(pos) - x0(neg)), 1 being no guidance",
    "embeddings": "the text embeddings e+ - strength e-",
    "nag": "normalized attention guidance, strength being phi",
    "vsf": "value sign flip: one softmax over both prompts, the negative's values times -strength",
    "orthogonal": "as nasa, with the part of Z- at right angles to Z+ alone",
}
_ATTENTION = {"nasa": nasa, "nag": nag, "vsf": vsf, "orthogonal": orthogonal}
Predict = Callable[[Text], torch.Tensor]  # x0 (B, C, h, w) of B prompts
Noise = Callable[[int], torch.Tensor]  # of the step with that number, (B, C, h, w)


@dataclass(frozen=True)
class Method:
    """How a negative prompt acts, and how strongly; on the command line "none", or NAME:STRENGTH such as "nasa:0.3"."""

    name: str
    strength: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Method:
        """Raises ValueError for anything else; says what there is."""
        name, colon, number = text.strip().partition(":")
        known = "; ".join(f"{key}{'' if key == 'none' else ':STRENGTH'} ({what})" for key, what in METHODS.items())
        if name not in METHODS or bool(colon) != (name != "none"):
            raise ValueError(f"method {text!r} is not known; available: {known}")
        if not colon:
            return cls(name)
        try:
            strength = float(number)
        except ValueError:
            strength = float("nan")
        if not 0 <= strength < float("inf"):
            raise ValueError(f"method {text!r}: its strength must be a number from 0 up, such as {name}:0.3")
        return cls(name, strength)

    def __str__(self) -> str:
        return self.name if self.name == "none" else f"{self.name}:{self.strength:g}"


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


@torch.no_grad()
def steered_x0(
    model: Backbone, method: Method, positive: Text, negative: Text | None, recipe: OneStepRecipe, noise: Noise
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


def _x0(model: Backbone, x: torch.Tensor, t: int, alpha: float, sigma: float, text: Text) -> torch.Tensor:
    return one_step_x0(model, model.network, text, x, timestep=t, alpha_T=alpha, sigma_T=sigma)


def _steered(model: Backbone, method: Method, predict: Predict, positive: Text, negative: Text | None) -> torch.Tensor:
    """x0 at one timestep."""
    if method.name not in METHODS:
        raise ValueError(f"method {method.name!r} is not known; available: {', '.join(METHODS)}")
    if negative is None or method.name == "none":
        return predict(positive)
    if method.name in _ATTENTION:
        with _ATTENTION[method.name](model.network, negative, method.strength):
            return predict(positive)
    if method.name == "cfg":
        base = predict(negative if len(negative) == len(positive) else negative.expand(len(positive)))
        return base + method.strength * (predict(positive) - base)
    return predict(Text(states=positive.states - method.strength * negative.states, mask=positive.mask))


def _power(model: Backbone, t: int) -> float:
    """alpha_t^2 by the model's schedule."""
    powers = model.alphas_cumprod()
    if t >= len(powers):
        raise ValueError(f"timestep {t} is past the model's schedule, which ends at {len(powers) - 1}")
    return powers[t].item()
