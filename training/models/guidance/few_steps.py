"""One step or a few steps of a student, with a negative prompt acting by a guidance method.

Dimensions: B images, C latent channels, h x w latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name

import torch

from snoopi_core.formats.checkpoint import OneStepRecipe
from snoopi_core.one_step import sample_steps
from training.models.backbone import Backbone
from training.models.guidance.attention import attach
from training.models.guidance.methods import METHODS, Method
from training.models.sampling import one_step_x0
from training.models.sampling_recipe import recipe_steps
from training.models.text_embeddings import TextEmbeddings

Predict = Callable[[TextEmbeddings], torch.Tensor]  # x0 (B, C, h, w) for B prompts
Noise = Callable[[int], torch.Tensor]  # (B, C, h, w), by the number of the step


@torch.no_grad()
def steered_x0(
    model: Backbone,
    method: Method,
    positive: TextEmbeddings,
    negative: TextEmbeddings | None,
    recipe: OneStepRecipe,
    noise: Noise,
    *,
    steered: int | None = None,
) -> torch.Tensor:
    """x0 (B, C, h, w) fp32 by `recipe`, as One-Step Sampler computes it.

    Args:
        positive: B rows.
        negative: one row or B; None for no negative, whatever the method.
        noise: z for the first step, and z' for later ones, on the network's device.
        steered: the negative acts in this many steps, the first ones; None for all.

    Raises:
        ValueError: the steps of the recipe are of an unsupported kind, or the method takes many steps.
    """
    if len(recipe.timesteps) > 1 and model.prediction_type == "flow":
        raise ValueError(f"{len(recipe.timesteps)} steps of a flow model are not supported here; supported: 1")
    steps = recipe_steps(model, recipe)

    def predict(number: int, x: torch.Tensor) -> torch.Tensor:
        away = negative if steered is None or number < steered else None
        return _steered(model, method, partial(_x0, model, x, *steps[number]), positive, away)

    z = noise(0)
    x = z * steps[0].sigma if recipe.noise == "scheduled" else z
    return sample_steps(predict, x, steps, noise, kind=recipe.steps)


def _x0(model: Backbone, x: torch.Tensor, t: int, alpha: float, sigma: float, text: TextEmbeddings) -> torch.Tensor:
    if model.prediction_type == "flow":  # v = x0 - z; flows take one step here, where x is z
        return x + model.call(model.network, x, torch.full((len(x),), t, device=x.device), text).float()
    return one_step_x0(model, model.network, text, x, timestep=t, alpha_T=alpha, sigma_T=sigma)


def _steered(
    model: Backbone, method: Method, predict: Predict, positive: TextEmbeddings, negative: TextEmbeddings | None
) -> torch.Tensor:
    """x0 at one timestep."""
    spec = METHODS[method.name]
    if spec.many_steps:
        available = ", ".join(name for name, other in METHODS.items() if not other.many_steps)
        raise ValueError(f"method {method.name!r} cannot act at a single step; available: {available}")
    if negative is not None and spec.processor:
        with attach(model.network, resolve_name(spec.processor)(negative, method.strength)):
            return predict(positive)
    if negative is not None and spec.x0:
        return resolve_name(spec.x0)(predict, positive, negative, method.strength)
    return predict(positive)
