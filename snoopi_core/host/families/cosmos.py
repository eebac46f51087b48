"""Cosmos-Predict2, and Anima: the same network with an adapter between text encoder and network."""

from __future__ import annotations

from comfy.ldm.anima.model import Anima
from comfy.ldm.cosmos.predict2 import MiniTrainDIT

from .steered_layer import Projections
from .transformer import TransformerFamily


class CosmosPredict2Family(TransformerFamily):
    name = "Cosmos-Predict2"
    networks = (MiniTrainDIT,)
    projections = Projections(query="q_proj", keys_values=("k_proj", "v_proj"), output="output_proj")
    context_argument = "crossattn_emb"

    def text_width(self, network: MiniTrainDIT) -> int:
        return network.blocks[0].cross_attn.k_proj.in_features

    def patch_size(self, network: MiniTrainDIT) -> tuple[int, int, int]:
        return network.patch_temporal, network.patch_spatial, network.patch_spatial


class AnimaFamily(CosmosPredict2Family):
    name = "Anima"
    networks = (Anima,)
    required = ("t5xxl_ids", "T5 tokens for the model's text adapter")

    def text_width(self, network: Anima) -> int:
        # The width of the text encoder's output, not of the adapter's.
        return network.llm_adapter.blocks[0].cross_attn.k_proj.in_features
