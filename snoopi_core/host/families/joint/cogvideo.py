"""CogVideoX 1.0 and 1.5: the text has no positions."""

from __future__ import annotations

from comfy.ldm.cogvideo.model import CogVideoXBlock, CogVideoXTransformer3DModel

from .block import JointBlock
from .family import JointFamily


class CogVideoXFamily(JointFamily):
    name = "CogVideoX"
    networks = (CogVideoXTransformer3DModel,)
    groups = (
        ("blocks", "block", CogVideoXBlock, JointBlock(
            text="encoder_hidden_states", image="hidden_states", conditioning=("temb",),
            image_positions=(("image_rotary_emb", 0),),
        )),
    )  # fmt: skip

    def text_width(self, network: CogVideoXTransformer3DModel) -> int:
        return network.patch_embed.text_proj.in_features

    def patch_size(self, network: CogVideoXTransformer3DModel) -> tuple[int, int, int]:
        return network.patch_size_t or 1, network.patch_size, network.patch_size
