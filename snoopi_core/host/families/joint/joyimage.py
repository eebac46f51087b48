"""JoyImage: the image comes first, and the text has no positions."""

from __future__ import annotations

from comfy.ldm.joyimage.model import JoyImageTransformer3DModel, JoyImageTransformerBlock

from .block import JointBlock
from .family import JointFamily


class JoyImageFamily(JointFamily):
    name = "JoyImage"
    networks = (JoyImageTransformer3DModel,)
    groups = (
        ("double_blocks", "block", JoyImageTransformerBlock, JointBlock(
            text="encoder_hidden_states", image="hidden_states", conditioning=("temb",),
            image_positions=(("image_rotary_emb", 1),), image_first=True,
        )),
    )  # fmt: skip
    has_references = True

    def text_width(self, network: JoyImageTransformer3DModel) -> int:
        return network.condition_embedder.text_embedder.linear_1.in_features
