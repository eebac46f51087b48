"""Images from a backbone, for grids and measurements: one step by the student's recipe, many steps by DDIM."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import nn

from snoopi_core.one_step import x0_from_output
from training.backbone import Backbone


@torch.no_grad()
def one_step_x0(
    unet: nn.Module,
    text: torch.Tensor,
    z: torch.Tensor,
    *,
    timestep: int,
    alpha_T: float,
    sigma_T: float,
    prediction_type: str,
) -> torch.Tensor:
    """x0 (B, C, h, w) fp32 from noise z (B, C, h, w) and text embeddings (B, S, E) in one call of the network."""
    t = torch.full((len(z),), timestep, device=z.device)
    return x0_from_output(unet(z, t, text).sample, z, alpha_T, sigma_T, prediction_type)


@torch.no_grad()
def ddim_x0(
    backbone: Backbone, text: torch.Tensor, null: torch.Tensor, z: torch.Tensor, *, steps: int = 20, kappa: float = 3.0
) -> torch.Tensor:
    """x0 (B, C, h, w) by DDIM with classifier-free guidance; text (B, S, E), null (1, S, E), z (B, C, h, w)."""
    scheduler = DDIMScheduler(
        **backbone.schedule.model_dump(),
        prediction_type=backbone.prediction_type,
        clip_sample=False,  # diffusers' defaults suit pixels; latents must be neither clipped ...
        set_alpha_to_one=False,  # ... nor pulled to a noise level that the network never saw
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps, device=z.device)
    both = torch.cat([null.expand_as(text), text])
    x = z
    for t in scheduler.timesteps:
        out_null, out_text = backbone.unet(torch.cat([x, x]), t, both).sample.chunk(2)
        x = scheduler.step(out_null + kappa * (out_text - out_null), t, x).prev_sample
    return x
