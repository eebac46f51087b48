"""Krea 2: one stream after a fusion of the text encoder's layers."""

from __future__ import annotations

from comfy.ldm.krea2.model import SingleStreamBlock, SingleStreamDiT

from .block import Arguments, JointBlock, img_slice
from .family import JointFamily


def _check_references(arguments: Arguments, length: int) -> None:
    """References at time 0 change the modulation by the index of a token; the text's comes first."""
    end = arguments.get("timestep_zero_index")
    if end is not None and length > end:
        raise ValueError(f"negative has {length} tokens, more than text and picture have together ({end}): shorten it")


class Krea2Family(JointFamily):
    name = "Krea 2"
    networks = (SingleStreamDiT,)
    groups = (
        ("blocks", "block", SingleStreamBlock, JointBlock(
            text="x", conditioning=("vec",), positions=("freqs", 2), mask="mask", text_length=img_slice,
            check=_check_references,
        )),
    )  # fmt: skip
    has_references = True

    def text_width(self, network: SingleStreamDiT) -> int:
        return network.txtlayers * network.txtdim

    def patch_size(self, network: SingleStreamDiT) -> tuple[int, int, int]:
        return 1, network.patch, network.patch
