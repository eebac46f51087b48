"""Lens: the image comes first, and the positions of the text begin behind the picture's."""

from __future__ import annotations

from comfy.ldm.lens.model import LensTransformer2DModel, LensTransformerBlock

from .block import JointBlock
from .family import JointFamily


class LensFamily(JointFamily):
    name = "Lens"
    networks = (LensTransformer2DModel,)
    groups = (
        ("transformer_blocks", "block", LensTransformerBlock, JointBlock(
            text="encoder_hidden_states", image="hidden_states", conditioning=("temb",), positions=("freqs_cis", 2),
            mask="attention_mask", image_first=True, returns_text_first=True,
        )),
    )  # fmt: skip
    text_depends_on_size = True

    def text_width(self, network: LensTransformer2DModel) -> int:
        return network.txt_in.in_features

    def patch_size(self, network: LensTransformer2DModel) -> tuple[int, int, int]:
        return 1, 1, 1  # its latents are patches already
