"""PixArt-alpha and PixArt-sigma.

The host passes no mask over the T5 tokens to the blocks, so all tokens are used, for the positive and the negative.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.pixart.pixartms import PixArtMS
from comfy.model_base import BaseModel

from .base import Context, Select
from .forwards import Forward
from .steered_layer import Projections
from .transformer import TransformerFamily


class PixArtFamily(TransformerFamily):
    name = "PixArt-alpha and PixArt-sigma"
    networks = (PixArtMS,)
    projections = Projections(query="q_linear", keys_values=("kv_linear",), output="proj")
    context_argument = "y"

    def text_width(self, network: PixArtMS) -> int:
        return network.y_embedder.y_proj.fc1.in_features

    def kind(self, model: BaseModel) -> str:
        return "PixArt"

    def read_context(self, arguments: dict[str, Any], rows: int) -> Context:
        # The host concatenates the tokens of all rows, (1, rows * T, C).
        tokens = arguments[self.context_argument]
        return Context(tokens=tokens.reshape(rows, -1, tokens.shape[-1]))

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        return forward(x, context.tokens)

    def prompt(self, attention: Any, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context:
        return Context(tokens=select(args[0].reshape(x.shape[0], -1, args[0].shape[-1])))
