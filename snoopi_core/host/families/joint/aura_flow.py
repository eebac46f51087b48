"""AuraFlow: blocks with two streams, then blocks with one; register tokens count as text."""

from __future__ import annotations

from comfy.ldm.aura.mmdit import DiTBlock, MMDiT, MMDiTBlock

from .block import JointBlock
from .family import JointFamily


class AuraFlowFamily(JointFamily):
    name = "AuraFlow"
    networks = (MMDiT,)
    groups = (
        ("double_layers", "double", MMDiTBlock, JointBlock(
            text="c", image="x", conditioning=("global_cond",), returns_text_first=True,
        )),
        ("single_layers", "single", DiTBlock, JointBlock(text="cx", conditioning=("global_cond",))),
    )  # fmt: skip

    def text_width(self, network: MMDiT) -> int:
        return network.cond_seq_linear.in_features
