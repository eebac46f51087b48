"""LTX-Video (LTXV); its text input has a mask over the padding."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.lightricks.model import LTXVModel
from comfy.model_base import BaseModel

from .base import Context, network_of
from .forwards import Forward
from .transformer import Projections, TransformerFamily


class LTXVFamily(TransformerFamily):
    name = "LTX-Video"
    network = LTXVModel
    blocks_name = "transformer_blocks"
    attention_name = "attn2"
    projections = Projections(query="to_q", keys_values=("to_k", "to_v"), output="to_out")
    context_argument = "context"
    mask_argument = "attention_mask"
    required = ("attention_mask", "attention mask")

    def matches(self, model: BaseModel) -> bool:
        # If each layer scales the text by timestep, there is no single context to prepare.
        return super().matches(model) and not getattr(network_of(model), "cross_attention_adaln", False)

    def text_width(self, network: LTXVModel) -> int:
        return network.caption_channels

    def patch_size(self, network: LTXVModel) -> tuple[int, int, int]:
        return 1, 1, 1

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        return forward(x, **{**kwargs, "context": context.tokens, "mask": context.mask})
