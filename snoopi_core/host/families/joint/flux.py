"""Flux 1 (dev, schnell, Kontext, Krea), Flux 2 and Klein, LongCat-Image; Chroma and Chroma Radiance."""

from __future__ import annotations

from typing import Any

from comfy.ldm.chroma.model import Chroma
from comfy.ldm.chroma_radiance.model import ChromaRadiance
from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock
from comfy.ldm.flux.model import Flux

from .block import Arguments, JointBlock, img_slice
from .family import JointFamily


def _check_modulation(arguments: Arguments, length: int) -> None:
    """References at time 0 change the modulation by the index of a token; the text's comes first."""
    end = (arguments.get("modulation_dims") or [(0, length, 0)])[0][1]
    if end is not None and length > end:
        raise ValueError(f"negative has {length} tokens, more than text and picture have together ({end}): shorten it")


DOUBLE = JointBlock(
    text="txt", image="img", conditioning=("vec",), positions=("pe", 2), mask="attn_mask",
)  # fmt: skip
SINGLE = JointBlock(
    text="x", conditioning=("vec",), positions=("pe", 2), mask="attn_mask", text_length=img_slice,
    check=_check_modulation,
)  # fmt: skip
GROUPS = (
    ("double_blocks", "double", DoubleStreamBlock, DOUBLE),
    ("single_blocks", "single", SingleStreamBlock, SINGLE),
)


class FluxFamily(JointFamily):
    name = "Flux (1 and 2, Kontext, Klein, LongCat-Image)"
    networks = (Flux,)
    groups = GROUPS
    has_references = True

    def text_width(self, network: Flux) -> int:
        return network.txt_in.in_features


class ChromaFamily(JointFamily):
    name = "Chroma and Chroma Radiance"
    networks = (Chroma, ChromaRadiance)
    groups = GROUPS

    def text_width(self, network: Any) -> int:
        return network.txt_in.in_features
