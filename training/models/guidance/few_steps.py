"""One step or a few steps of a student, with a negative prompt acting by a guidance method.

Dimensions: B images, C latent channels, h x w latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name

import torch

from snoopi_core.formats.checkpoint import OneStepRecipe
from training.models.backbone import Backbone
from training.models.guidance.attention import attach
from training.models.guidance.methods import METHODS, Method
from training.models.sampling import one_step_x0
from training.models.sampling_recipe import alpha_squared
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
) -> torch.Tensor:
    """x0 (B, C, h, w) fp32 by `recipe`, with fresh noise between steps: x_t' = alpha_t' x0 + sigma_t' z'.

    Args:
        positive: B rows.
        negative: one row or B; None for no negative, whatever the method.
        noise: z for the first step, and z' for later ones, on the network's device.

    Raises:
        ValueError: the steps of the recipe are of an unsupported kind, or the method takes many steps.
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
            power = alpha_squared(model, t)
            alpha, sigma = power**0.5, (1 - power) ** 0.5
            x = alpha * x0 + sigma * z
        x0 = _steered(model, method, partial(_x0, model, x, t, alpha, sigma), positive, negative)
    assert x0 is not None  # a recipe has at least one timestep
    return x0


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
