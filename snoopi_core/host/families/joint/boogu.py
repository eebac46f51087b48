"""Boogu-Image: blocks with two streams, which have a second attention of the image alone, then OmniGen 2's."""

from __future__ import annotations

import dataclasses

from comfy.ldm.boogu.model import BooguDoubleStreamBlock, BooguTransformer2DModel
from comfy.ldm.omnigen.omnigen2 import OmniGen2TransformerBlock

from .block import JointBlock
from .family import JointFamily
from .omnigen2 import BLOCK


class BooguFamily(JointFamily):
    name = "Boogu-Image"
    networks = (BooguTransformer2DModel,)
    groups = (
        ("double_stream_layers", "double", BooguDoubleStreamBlock, JointBlock(
            text="instruct_hidden_states", image="img_hidden_states", conditioning=("temb", "img_rotary_emb"),
            positions=("joint_rotary_emb", 1), image_positions=(("img_rotary_emb", 1),), mask="joint_attention_mask",
        )),
        ("single_stream_layers", "single", OmniGen2TransformerBlock, dataclasses.replace(BLOCK, text_length=None)),
    )  # fmt: skip
    has_references = True
    target_first = False

    def text_width(self, network: BooguTransformer2DModel) -> int:
        return network.time_caption_embed.caption_embedder[1].in_features
