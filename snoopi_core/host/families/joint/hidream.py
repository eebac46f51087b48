"""HiDream-I1: the image comes first; each block adds to the text one layer of the Llama that only it sees."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from comfy.ldm.hidream.model import HiDreamImageBlock, HiDreamImageTransformer2DModel
from comfy.model_base import BaseModel

from ...conditioning.negative import Negative
from ..base import Options, network_of
from ..forwards import replaced_forwards
from .block import JointBlock
from .family import JointFamily
from .stream import JointContext

_BOTH = {"conditioning": ("adaln_input",), "positions": ("rope", 1), "image_first": True}


class HiDreamFamily(JointFamily):
    name = "HiDream-I1"
    networks = (HiDreamImageTransformer2DModel,)
    groups = (
        ("double_stream_blocks", "double", HiDreamImageBlock, JointBlock(
            text="text_tokens", image="image_tokens", **_BOTH,
        )),
        ("single_stream_blocks", "single", HiDreamImageBlock, JointBlock(text="image_tokens", **_BOTH)),
    )  # fmt: skip
    required = ("conditioning_llama3", "Llama embedding")

    def text_width(self, network: HiDreamImageTransformer2DModel) -> int:
        return network.caption_projection[-1].linear.in_features

    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> JointContext:
        # A picture for HiDream-E1 beside the text.
        settings = {key: each for key, each in negative.settings.items() if key != "concat_latent_image"}
        negative = dataclasses.replace(negative, settings=settings)
        layers: list[torch.Tensor] = []
        projections = list(network_of(model).caption_projection)

        def projecting(forward: Any) -> Any:
            def project(caption: torch.Tensor) -> torch.Tensor:
                layers.append(forward(caption))
                return layers[-1]

            return project

        with replaced_forwards([(each, projecting(each.forward)) for each in projections]):
            context = super().context(model, negative, x, sigma, options)
        # The last projection is T5's. The text that goes on is T5's and the last layer's.
        *layers, t5 = layers
        going_on = t5.shape[1] + layers[-1].shape[1]
        return dataclasses.replace(context, tokens=context.tokens[:, :going_on], joined=tuple(layers))
