"""What the teachers of the small worlds have in common: schedule, a penalty, and rounding to the shipped weights."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel


def new_scheduler(prediction_type: str = "v_prediction") -> DDIMScheduler:
    """Stable Diffusion's noise schedule; timesteps are trailing, so that one step is t = 999."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
    )


class CentringPenalty:
    """Penalty on the batch mean of the cross-attention response Z: |mean Z|^2 / mean |Z|^2, mean over the layers.

    The constant part of Z does not depend on the words (a bias could replace it), but NASA would subtract it too.
    Reads the inputs of every `attn2.to_out[0]` with hooks.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._terms: list[torch.Tensor] = []
        for name, module in unet.named_modules():
            if name.endswith("attn2.to_out.0"):
                module.register_forward_pre_hook(self._watch)

    def _watch(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        z = inputs[0]  # (B, N, C)
        self._terms.append(z.mean(dim=(0, 1)).square().sum() / (z.square().sum(dim=2).mean() + 1e-6))

    def pop_penalty(self) -> torch.Tensor:
        """The penalty of the last forward pass; scalar."""
        terms, self._terms = self._terms, []
        return torch.stack(terms).mean()


def as_shipped(module: torch.nn.Module) -> torch.nn.Module:
    """Round weights in place to fp16 values, so that the shipped fp16 file is exactly the model measured here."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(weight.half().float())
    return module
