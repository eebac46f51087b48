"""The settings of one NASA Apply node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...guidance.blocks import Block
from ...guidance.methods import NASA, Method
from ..conditioning.negative import Negative
from ..conditioning.window import Window

ALL_ZEROS = "the negative is all zeros (ConditioningZeroOut). Connect a CLIP Text Encode that names what to avoid"
"""Why nothing changes if a network does not respond to zeros."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering:
    """One negative conditioning, with how, how strongly, when and where it acts.

    alpha: the method's strength.
    mask: where in the picture, (n, h, w) in [0, 1]; None for everywhere.
    is_ignored: whether it is known that the network does not respond to any of the prompts.
    node: the id of the node that made it, which shows `text` and the warnings of sampling runs; "" without a server.
    """

    negatives: tuple[Negative, ...]
    method: Method = NASA
    alpha: float
    window: Window
    blocks: frozenset[Block]
    mask: torch.Tensor | None
    is_ignored: bool = False
    node: str = ""
    text: str = ""

    def active_negatives(self, is_active: Callable[[Window], bool]) -> list[tuple[Negative, float]]:
        """The prompts that act now, each with its share: several prompts are averaged, as the host does."""
        if not is_active(self.window):
            return []
        now = [negative for negative in self.negatives if negative.strength > 0.0 and is_active(negative.window)]
        total = sum(negative.strength for negative in now)
        return [(negative, negative.strength / total) for negative in now]

    def inactive_reason(self) -> str:
        """Why this changes nothing; "" if it changes something."""
        if self.alpha == 0.0:
            return "alpha is 0"
        if self.window.is_empty:
            return f"start_percent {self.window.start_percent:g} is not before end_percent {self.window.end_percent:g}"
        if self.is_ignored:
            return ALL_ZEROS
        if self.mask is not None and not self.mask.any():
            return (
                "the mask is black everywhere. Load Image's MASK output is the picture's transparency, which is black "
                "for most pictures; to use a black-and-white picture, add Convert Image to Mask"
            )
        return ""
