"""Qwen-Image and Qwen-Image-Edit; the positions of their text begin behind the picture's."""

from __future__ import annotations

from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel, QwenImageTransformerBlock

from .block import JointBlock
from .family import JointFamily

BLOCK = JointBlock(
    text="encoder_hidden_states", image="hidden_states", conditioning=("temb",), positions=("image_rotary_emb", 2),
    mask="encoder_hidden_states_mask", returns_text_first=True,
)  # fmt: skip


class QwenImageFamily(JointFamily):
    name = "Qwen-Image and Qwen-Image-Edit"
    networks = (QwenImageTransformer2DModel,)
    groups = (("transformer_blocks", "block", QwenImageTransformerBlock, BLOCK),)
    has_references = True
    text_depends_on_size = True

    def text_width(self, network: QwenImageTransformer2DModel) -> int:
        return network.txt_in.in_features
