"""HunyuanDiT 1.x; its text input is the concatenation of CLIP's and mT5's tokens."""

from __future__ import annotations

from comfy.ldm.hydit.models import HunYuanDiT

from .steered_layer import Projections
from .transformer import TransformerFamily


class HunyuanDiTFamily(TransformerFamily):
    name = "HunyuanDiT"
    networks = (HunYuanDiT,)
    attention_name = "attn2"
    projections = Projections(query="q_proj", keys_values=("kv_proj",), output="out_proj")
    context_argument = "text_states"
    required = ("conditioning_mt5xl", "mT5 embedding")

    def text_width(self, network: HunYuanDiT) -> int:
        return network.text_states_dim
