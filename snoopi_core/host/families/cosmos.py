"""Cosmos-Predict2, and Anima: the same network with an adapter between text encoder and network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.ldm.anima.model import Anima
from comfy.ldm.cosmos.predict2 import MiniTrainDIT
from comfy.model_base import BaseModel

from ..conditioning.negative import Negative
from .base import Context
from .forwards import Forward
from .transformer import Projections, TransformerFamily


class CosmosPredict2Family(TransformerFamily):
    name = "Cosmos-Predict2"
    network = MiniTrainDIT
    projections = Projections(query="q_proj", keys_values=("k_proj", "v_proj"), output="output_proj")
    context_argument = "crossattn_emb"

    def transformer_blocks(self, network: MiniTrainDIT) -> Sequence[torch.nn.Module]:
        return network.blocks

    def cross_attention(self, block: Any) -> torch.nn.Module:
        return block.cross_attn

    def text_width(self, network: MiniTrainDIT) -> int:
        return network.blocks[0].cross_attn.k_proj.in_features

    def patch_size(self, network: MiniTrainDIT) -> tuple[int, int, int]:
        return network.patch_temporal, network.patch_spatial, network.patch_spatial

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        _, *rest = args  # the positive's text
        return forward(x, context.tokens, *rest, **kwargs)


class AnimaFamily(CosmosPredict2Family):
    name = "Anima"
    network = Anima

    def text_width(self, network: Anima) -> int:
        # The width of the text encoder's output, not of the adapter's.
        return network.llm_adapter.blocks[0].cross_attn.k_proj.in_features

    def check(self, model: BaseModel, negative: Negative) -> None:
        super().check(model, negative)
        if negative.settings.get("t5xxl_ids") is None:
            raise ValueError(
                "negative has no T5 tokens for the model's text adapter: it was made by another model's text encoder. "
                "Encode it with this Anima model's own CLIP"
            )
