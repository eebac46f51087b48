"""Wan 2.1 (and 2.2, the same network): text to video and image to video."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.wan.model import WanModel, WanT2VCrossAttention

from .base import Context
from .forwards import Forward
from .transformer import Projections, TransformerFamily


class WanFamily(TransformerFamily):
    name = "Wan 2.1 and 2.2 (text to video, image to video)"
    network = WanModel
    projections = Projections(query="q", keys_values=("k", "v"), output="o")
    context_argument = "context"

    def text_width(self, network: WanModel) -> int:
        return network.text_embedding[0].in_features

    def patch_size(self, network: WanModel) -> tuple[int, int, int]:
        return tuple(network.patch_size)

    def read_context(self, arguments: dict[str, Any], rows: int) -> Context:
        # Image tokens, if any, come first; a negative is text only.
        return Context(tokens=arguments[self.context_argument][:, arguments.get("context_img_len") or 0 :])

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        options = kwargs.get("transformer_options", {})
        if isinstance(attention, WanT2VCrossAttention):
            return forward(x, context.tokens, transformer_options=options)
        # An image-to-video layer adds a response to the image. The negative needs only the response to the text, which
        # the text-to-video layer computes with the same projections and norms.
        return WanT2VCrossAttention.forward(attention, x, context.tokens, transformer_options=options)
