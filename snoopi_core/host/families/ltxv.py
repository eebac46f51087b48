"""LTX-Video (LTXV); its text input has a mask over the padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.ldm.lightricks.model import LTXVModel
from comfy.model_base import BaseModel

from ..conditioning.negative import Negative
from .base import Context, network_of
from .forwards import Forward
from .transformer import Projections, TransformerFamily


class LTXVFamily(TransformerFamily):
    name = "LTX-Video"
    network = LTXVModel
    projections = Projections(query="to_q", keys_values=("to_k", "to_v"), output="to_out")
    context_argument = "context"
    mask_argument = "attention_mask"

    def matches(self, model: BaseModel) -> bool:
        # If each layer scales the text by timestep, there is no single context to prepare.
        return super().matches(model) and not getattr(network_of(model), "cross_attention_adaln", False)

    def transformer_blocks(self, network: LTXVModel) -> Sequence[torch.nn.Module]:
        return network.transformer_blocks

    def cross_attention(self, block: Any) -> torch.nn.Module:
        return block.attn2

    def text_width(self, network: LTXVModel) -> int:
        return network.caption_channels

    def patch_size(self, network: LTXVModel) -> tuple[int, int, int]:
        return 1, 1, 1

    def check(self, model: BaseModel, negative: Negative) -> None:
        super().check(model, negative)
        if negative.settings.get("attention_mask") is None:
            raise ValueError(
                "negative has no attention mask: it was made by another model's text encoder. Encode it with this "
                "LTX-Video model's own CLIP"
            )

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        return forward(x, **{**kwargs, "context": context.tokens, "mask": context.mask})
