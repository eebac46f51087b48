"""HunyuanDiT 1.x; its text input is the concatenation of CLIP's and mT5's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.ldm.hydit.models import HunYuanDiT
from comfy.model_base import BaseModel

from ..conditioning.negative import Negative
from .base import Context
from .forwards import Forward
from .transformer import Projections, TransformerFamily


class HunyuanDiTFamily(TransformerFamily):
    name = "HunyuanDiT"
    network = HunYuanDiT
    projections = Projections(query="q_proj", keys_values=("kv_proj",), output="out_proj")
    context_argument = "text_states"

    def transformer_blocks(self, network: HunYuanDiT) -> Sequence[torch.nn.Module]:
        return network.blocks

    def cross_attention(self, block: Any) -> torch.nn.Module:
        return block.attn2

    def text_width(self, network: HunYuanDiT) -> int:
        return network.text_states_dim

    def patch_size(self, network: HunYuanDiT) -> tuple[int, int, int]:
        return 1, network.patch_size, network.patch_size

    def check(self, model: BaseModel, negative: Negative) -> None:
        super().check(model, negative)
        if negative.settings.get("conditioning_mt5xl") is None:
            raise ValueError(
                "negative has no mT5 embedding: it was made by another model's text encoder. Encode it with this "
                "HunyuanDiT's own CLIP"
            )

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor]:
        _, *rest = args  # the positive's text, then the rotary embedding of the queries
        return forward(x, context.tokens, *rest, **kwargs)
