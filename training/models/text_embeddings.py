"""Encoded prompts as networks take them: embeddings, and for T5 a mask of the tokens.

Dimensions: B prompts, S tokens, E text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class TextEmbeddings:
    """states (B, S, E), and mask (B, S) bool, False for padding; None if padding is not masked (CLIP)."""

    states: torch.Tensor
    mask: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice) -> TextEmbeddings:
        return TextEmbeddings(states=self.states[rows], mask=None if self.mask is None else self.mask[rows])

    def expand(self, count: int) -> TextEmbeddings:
        """One prompt repeated `count` times."""
        return TextEmbeddings(
            states=self.states.expand(count, -1, -1), mask=None if self.mask is None else self.mask.expand(count, -1)
        )

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> TextEmbeddings:
        """Move both to `device`, and the states to `dtype`."""
        return TextEmbeddings(
            states=self.states.to(device, dtype), mask=None if self.mask is None else self.mask.to(device=device)
        )

    def where(self, chosen: torch.Tensor, other: TextEmbeddings) -> TextEmbeddings:
        """The rows of `other` (one or B) where chosen (B,) is True, otherwise these."""
        return TextEmbeddings(
            states=torch.where(chosen.view(-1, 1, 1), other.states, self.states),
            mask=None if self.mask is None else torch.where(chosen.view(-1, 1), other.mask, self.mask),
        )


def concat(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    """The rows of all `texts`; shorter ones are padded with zeros, which are masked.

    Raises:
        ValueError: the lengths differ, and there is no mask.
    """
    length = max(text.states.shape[1] for text in texts)
    missing = [length - text.states.shape[1] for text in texts]
    masks = [text.mask for text in texts if text.mask is not None]
    if any(missing) and not masks:
        raise ValueError("prompts of different numbers of tokens cannot be joined without masks")
    states = [functional.pad(text.states, (0, 0, 0, count)) for text, count in zip(texts, missing, strict=True)]
    if not masks:
        return TextEmbeddings(states=torch.cat(states))
    padded = [functional.pad(mask, (0, count)) for mask, count in zip(masks, missing, strict=True)]
    return TextEmbeddings(states=torch.cat(states), mask=torch.cat(padded))
