"""Sample latents for grids and measurements: a step or a few of a student, or many steps of a teacher.

Dimensions: B images, C latent channels, h x w latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn

from snoopi_core.one_step import Step, sample_steps, x0_from_output
from snoopi_core.presets import Steps
from training.models.backbone import Backbone
from training.models.text_embeddings import TextEmbeddings, concat


@torch.no_grad()
def one_step_x0(
    backbone: Backbone,
    network: nn.Module,
    text: TextEmbeddings,
    z: torch.Tensor,
    *,
    timestep: int,
    alpha_T: float,
    sigma_T: float,
) -> torch.Tensor:
    """x0 (B, C, h, w) fp32 from noise z (B, C, h, w) and B prompts in one call of `network`, of the same family."""
    t = torch.full((len(z),), timestep, device=z.device)
    output = backbone.call(network, z, t, text)
    return x0_from_output(output, z, alpha_T, sigma_T, backbone.prediction_type)


def few_step_x0(
    backbone: Backbone,
    network: nn.Module,
    text: TextEmbeddings,
    z: torch.Tensor,
    *,
    steps: Sequence[Step],
    noise: Callable[[int], torch.Tensor],
    kind: Steps,
) -> torch.Tensor:
    """x0 (B, C, h, w) fp32 from noise z of unit variance; arguments as of `one_step_x0` and `sample_steps`."""

    def predict(number: int, x: torch.Tensor) -> torch.Tensor:
        t, alpha, sigma = steps[number]
        return one_step_x0(backbone, network, text, x, timestep=t, alpha_T=alpha, sigma_T=sigma)

    return sample_steps(predict, z, steps, noise, kind=kind)


def ddim(backbone: Backbone) -> DDIMScheduler:
    """DDIM with the model's noise schedule."""
    return DDIMScheduler(
        **backbone.schedule.model_dump(),
        prediction_type=backbone.prediction_type,
        clip_sample=False,  # diffusers' defaults are for pixels; latents must not be clipped ...
        set_alpha_to_one=False,  # ... or end at a noise level that the network was not trained on
        timestep_spacing="trailing",
    )


def ddim_x0(
    backbone: Backbone,
    text: TextEmbeddings,
    null: TextEmbeddings,
    z: torch.Tensor,
    *,
    steps: int = 20,
    kappa: float | torch.Tensor = 3.0,
) -> torch.Tensor:
    """x0 (B, C, h, w) by DDIM with classifier-free guidance; see `guided_x0`."""
    return guided_x0(backbone, ddim(backbone), text, null, z, steps=steps, kappa=kappa)


@torch.no_grad()
def guided_x0(
    backbone: Backbone,
    scheduler: Any,
    text: TextEmbeddings,
    null: TextEmbeddings,
    z: torch.Tensor,
    *,
    steps: int,
    kappa: float | torch.Tensor,
) -> torch.Tensor:
    """x0 (B, C, h, w) fp32 in many steps with classifier-free guidance: out_null + kappa (out_text - out_null).

    Args:
        scheduler: a diffusers scheduler that adds no noise while sampling.
        text: B rows.
        null: one row or B, to guide away from.
        z: (B, C, h, w), unit variance.
        kappa: guidance scale, one for all images or (B, 1, 1, 1).
    """
    scheduler.set_timesteps(steps, device=z.device)
    both = concat([null if len(null) == len(text) else null.expand(len(text)), text])
    x = z * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(x, t)
        output = backbone.call(backbone.network, torch.cat([inputs, inputs]), t.expand(len(both)), both).float()
        out_null, out_text = output.chunk(2)
        x = scheduler.step(out_null + kappa * (out_text - out_null), t, x).prev_sample
    return x
