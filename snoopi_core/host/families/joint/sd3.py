"""Stable Diffusion 3 and 3.5; the medium 3.5 has a second attention of the image alone in some blocks."""

from __future__ import annotations

from comfy.ldm.modules.diffusionmodules.mmdit import JointBlock as SD3Block
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper

from .block import JointBlock
from .family import JointFamily


class SD3Family(JointFamily):
    name = "Stable Diffusion 3 and 3.5"
    networks = (OpenAISignatureMMDITWrapper,)
    groups = (
        ("joint_blocks", "block", SD3Block, JointBlock(
            text="context", image="x", conditioning=("c",), returns_text_first=True, positional=("context", "x"),
        )),
    )  # fmt: skip
    required = ("pooled_output", "pooled output")

    def text_width(self, network: OpenAISignatureMMDITWrapper) -> int:
        # Without an embedder the blocks take the encoder's output as it is.
        return getattr(network.context_embedder, "in_features", network.hidden_size)
