"""Ideogram 4: one stream; a mask keeps padding apart from text and image."""

from __future__ import annotations

from comfy.ldm.ideogram4.model import Ideogram4Transformer2DModel, Ideogram4TransformerBlock

from .block import JointBlock, prompt_length
from .family import JointFamily


class Ideogram4Family(JointFamily):
    name = "Ideogram 4"
    networks = (Ideogram4Transformer2DModel,)
    groups = (
        ("layers", "block", Ideogram4TransformerBlock, JointBlock(
            text="x", conditioning=("adaln_input",), positions=("freqs_cis", 1), mask="attn_mask",
            text_length=prompt_length,
        )),
    )  # fmt: skip

    def text_width(self, network: Ideogram4Transformer2DModel) -> int:
        return network.llm_cond_proj.in_features

    def patch_size(self, network: Ideogram4Transformer2DModel) -> tuple[int, int, int]:
        return 1, 1, 1  # its latents are patches already
