"""Stable Audio 1 (Open) and 3.

The host adds the clip's times as tokens to each prompt; a negative has its own.
"""

from __future__ import annotations

from comfy.ldm.audio.dit import AudioDiffusionTransformer

from ...guidance.methods import METHOD_NAMES
from .steered_layer import Projections
from .transformer import SoundFamily


class StableAudioFamily(SoundFamily):
    name = "Stable Audio"
    networks = (AudioDiffusionTransformer,)
    blocks_name = "transformer.layers"
    projections = Projections(query="to_q", keys_values=("to_kv",), output="to_out")
    context_argument = text_keyword = "context"
    text_settings = ("seconds_start", "seconds_total")
    methods = tuple(name for name in METHOD_NAMES if name != "VSF")  # newer ones are the difference of two attentions

    def text_width(self, network: AudioDiffusionTransformer) -> int:
        return network.cond_token_dim
