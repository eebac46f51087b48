"""NASA as something that a host model carries: one wrapper around its apply_model for each NASA Apply node."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ..blocks import parse_blocks
from .families import Attachment, Options, Steering, family_of
from .negative import Conditioning, plain_negative
from .window import Window

WRAPPER_KEY = "snoopi_nasa"


def apply_nasa(
    patcher: ModelPatcher, negative: Conditioning, *, alpha: float, window: Window, blocks: str
) -> ModelPatcher:
    """A clone of `patcher` that steers away from `negative`; `patcher` itself where nothing would be changed.

    Raises:
        ValueError: an unsupported model, a negative that is not plain or not this model's, or unknown blocks.
    """
    family = family_of(patcher.model)
    embedding = plain_negative(negative, family.context_width(patcher.model))
    chosen = parse_blocks(blocks, family.blocks(patcher.model))
    if alpha == 0.0 or window.is_empty:
        return patcher
    steering = Steering(negative=embedding, alpha=torch.tensor(alpha), blocks=chosen)
    steered = patcher.clone()
    steered.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, NASAWrapper(family.attach(steering), window))
    return steered


class NASAWrapper:
    """Around the host's `BaseModel.apply_model`; several on one model run one inside another."""

    def __init__(self, attachment: Attachment, window: Window) -> None:
        self.attachment, self.window = attachment, window

    def __call__(
        self,
        executor: WrapperExecutor,
        x: torch.Tensor,
        sigma: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **conditions: Any,
    ) -> torch.Tensor:
        def proceed(options: Options) -> torch.Tensor:
            return executor(x, sigma, c_concat, c_crossattn, control, options, **conditions)

        options = transformer_options or {}
        model = executor.class_obj
        if not self.window.is_everything and not self.window.is_active(float(sigma[0]), model.model_sampling):
            return proceed(options)
        return self.attachment(model, x, options, proceed)
