"""PixelDiT: its patches' blocks see the text; the later blocks of single pixels do not."""

from __future__ import annotations

from comfy.ldm.pixeldit.model import MMDiTBlockT2I, PixDiT_T2I

from .block import JointBlock
from .family import JointFamily


class PixelDiTFamily(JointFamily):
    name = "PixelDiT"
    networks = (PixDiT_T2I,)
    groups = (
        ("patch_blocks", "block", MMDiTBlockT2I, JointBlock(
            text="y", image="x", conditioning=("c",), text_positions="pos_txt", image_positions=(("pos_img", 0),),
            mask="attn_mask",
        )),
    )  # fmt: skip

    def text_width(self, network: PixDiT_T2I) -> int:
        return network.txt_embed_dim
