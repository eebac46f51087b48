"""Stable Audio 1 (Open) and 3.

The host adds the clip's times as tokens to each prompt; a negative has its own.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.audio.dit import AudioDiffusionTransformer

from ...guidance.methods import METHOD_NAMES
from .base import Context, Grid, Select
from .forwards import Forward
from .steered_layer import Projections
from .transformer import TransformerFamily


class StableAudioFamily(TransformerFamily):
    name = "Stable Audio"
    networks = (AudioDiffusionTransformer,)
    blocks_name = "transformer.layers"
    projections = Projections(query="to_q", keys_values=("to_kv",), output="to_out")
    context_argument = "context"
    text_settings = ("seconds_start", "seconds_total")
    sound = frozenset({"block"})
    methods = tuple(name for name in METHOD_NAMES if name != "VSF")  # newer ones are the difference of two attentions

    def text_width(self, network: AudioDiffusionTransformer) -> int:
        return network.cond_token_dim

    def grid(self, network: AudioDiffusionTransformer, shape: torch.Size) -> Grid:
        return 1, 1, shape[-1]

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        return forward(x, **{**kwargs, "context": context.tokens})

    def prompt(self, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context:
        return Context(tokens=select(kwargs["context"]))
