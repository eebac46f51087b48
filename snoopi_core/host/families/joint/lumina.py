"""NextDiT: Lumina 2, Z-Image and their relatives; a refiner prepares the text, and Z-Image pads text and picture."""

from __future__ import annotations

from typing import Any

import comfy.ldm.lumina.model as lumina

from ..base import Grid
from .block import Arguments, JointBlock
from .family import JointFamily


def _padded(network: Any, tokens: int) -> int:
    multiple = network.pad_tokens_multiple or 1
    return -(-tokens // multiple) * multiple


def _text_length(network: Any, arguments: Arguments, prompt: int) -> int:
    return _padded(network, prompt)


def _check_references(arguments: Arguments, length: int) -> None:
    if arguments.get("timestep_zero_index") is not None:
        raise ValueError(
            "NASA cannot steer Z-Image with reference pictures: their prompts are part of the text. Remove the "
            "references, or NASA Apply"
        )


class LuminaFamily(JointFamily):
    name = "Lumina 2 and Z-Image"
    networks = tuple(getattr(lumina, name) for name in ("NextDiT", "NextDiTPixelSpace") if hasattr(lumina, name))
    groups = (
        ("layers", "block", lumina.JointTransformerBlock, JointBlock(
            text="x", conditioning=("adaln_input",), positions=("freqs_cis", 1), mask="x_mask",
            text_length=_text_length, check=_check_references,
        )),
    )  # fmt: skip

    def text_width(self, network: Any) -> int:
        return network.cap_embedder[1].in_features

    def image_tokens(self, network: Any, grid: Grid) -> int:
        return _padded(network, grid[0] * grid[1] * grid[2])
