"""OmniGen 2: one stream after a refiner of the text; reference pictures come before the picture."""

from __future__ import annotations

from comfy.ldm.omnigen.omnigen2 import OmniGen2Transformer2DModel, OmniGen2TransformerBlock

from .block import JointBlock, prompt_length
from .family import JointFamily

BLOCK = JointBlock(
    text="hidden_states", conditioning=("temb",), positions=("image_rotary_emb", 1), mask="attention_mask",
    text_length=prompt_length,
)  # fmt: skip


class OmniGen2Family(JointFamily):
    name = "OmniGen 2"
    networks = (OmniGen2Transformer2DModel,)
    groups = (("layers", "block", OmniGen2TransformerBlock, BLOCK),)
    has_references = True
    target_first = False

    def text_width(self, network: OmniGen2Transformer2DModel) -> int:
        return network.time_caption_embed.caption_embedder[1].in_features
