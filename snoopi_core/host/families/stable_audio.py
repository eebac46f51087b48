"""Stable Audio 1 (Open) and 3.

The host adds the clip's times as tokens to each prompt; a negative has its own.
"""

from __future__ import annotations

from comfy.ldm.audio.dit import AudioDiffusionTransformer
from comfy.model_base import BaseModel

from .base import network_of
from .steered_layer import Projections
from .transformer import SoundFamily


class StableAudioFamily(SoundFamily):
    name = "Stable Audio"
    networks = (AudioDiffusionTransformer,)
    blocks_name = "transformer.layers"
    projections = Projections(query="to_q", keys_values=("to_kv",), output="to_out")
    context_argument = text_keyword = "context"
    text_settings = ("seconds_start", "seconds_total")

    def text_width(self, network: AudioDiffusionTransformer) -> int:
        return network.cond_token_dim

    def why_not(self, model: BaseModel, method: str) -> str:
        attention = network_of(model).transformer.layers[0].cross_attn
        if method == "VSF" and getattr(attention, "differential", False):
            return "its attention to the text is the difference of two, which have no common share of the negative"
        return ""
