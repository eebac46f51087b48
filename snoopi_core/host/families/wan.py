"""Wan 2.1 and 2.2: text, image, audio, pose, camera and control to video.

All of them attend to the text in the same layers (`cross_attn` of each block). What they know of pictures, audio, faces
or music comes in other ways, which stay untouched: image tokens before the text's with projections of their own, added
image tokens, or separate layers.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.wan.model import WanModel, WanT2VCrossAttention
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from .base import Context, LayerKey, Select, network_of
from .classes import existing
from .forwards import Forward
from .steered_layer import Projections, SteeredLayer, TransformerLayer
from .transformer import TransformerFamily


class WanFamily(TransformerFamily):
    name = "Wan 2.1 and 2.2 (all variants)"
    networks = (
        *existing(
            "comfy.ldm.wan.model",
            *("WanModel", "VaceWanModel", "CameraWanModel", "WanModel_S2V", "HumoWanModel"),
            *("SCAILWanModel", "SCAIL2WanModel"),
        ),
        *existing("comfy.ldm.wan.model_animate", "AnimateWanModel"),
        *existing("comfy.ldm.wan.model_wandancer", "WanDancerModel"),
    )
    projections = Projections(query="q", keys_values=("k", "v"), output="o")
    context_argument = "context"
    text_settings = ()  # a negative is text only

    def text_width(self, network: WanModel) -> int:
        return network.text_embedding[0].in_features

    def layers(self, model: BaseModel) -> dict[LayerKey, TransformerLayer]:
        """VACE has a second list of blocks, which run beside the others."""
        vace = {
            ("vace", index): TransformerLayer(Block("vace", index), block.cross_attn, self.projections)
            for index, block in enumerate(getattr(network_of(model), "vace_blocks", ()))
        }
        return {**super().layers(model), **vace}

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        options = kwargs.get("transformer_options", {})
        if isinstance(attention, WanT2VCrossAttention):
            return forward(x, context.tokens, transformer_options=options)
        # An image-to-video layer adds a response to the image. The negative needs only the response to the text, which
        # the text-to-video layer computes with the same projections and norms.
        return WanT2VCrossAttention.forward(attention, x, context.tokens, transformer_options=options)

    def prompt(self, attention: Any, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context:
        text = select(args[0])
        if isinstance(attention, WanT2VCrossAttention):
            return Context(tokens=text)  # some blocks hand over a length of image tokens that are not there
        return Context(tokens=text[:, args[1] if len(args) > 1 else kwargs["context_img_len"] :])

    def answers_only_text(self, attention: Any) -> bool:
        return isinstance(attention, WanT2VCrossAttention)


class CausalWanFamily(WanFamily):
    """Frame by frame, with keys and values kept from frame to frame."""

    name = "Wan 2.1 autoregressive (Causal Forcing, Self-Forcing)"
    networks = existing("comfy.ldm.wan.ar_model", "CausalWanModel")

    def why_not(self, model: BaseModel, method: str) -> str:
        return "it needs the prompt, which is not there after the first frames" if method == "VSF" else ""

    def steered_layer(self, key: LayerKey) -> SteeredLayer:
        return _CachedTextLayer(self, key)


class _CachedTextLayer(SteeredLayer):
    """After the first frames, the host keeps K+ and V+ and calls only the query and the output projection."""

    def query(self, x: torch.Tensor) -> torch.Tensor:
        if self._arguments is None:
            self._arguments = x, (), {}
        return super().query(x)
