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

    def padded(self, length: int) -> TextEmbeddings:
        """Padded to `length` tokens with zeros, which are masked.

        Raises:
            ValueError: there is no mask, or more than `length` tokens.
        """
        missing = length - self.states.shape[1]
        if missing == 0:
            return self
        if self.mask is None or missing < 0:
            reason = "no mask" if self.mask is None else "too many"
            raise ValueError(f"{self.states.shape[1]} tokens cannot be padded to {length} ({reason})")
        return TextEmbeddings(
            states=functional.pad(self.states, (0, 0, 0, missing)), mask=functional.pad(self.mask, (0, missing))
        )


def concat(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    """The rows of all `texts`; shorter ones are padded, for which they need masks."""
    length = max(text.states.shape[1] for text in texts)
    texts = [text.padded(length) for text in texts]
    masks = [text.mask for text in texts]
    return TextEmbeddings(
        states=torch.cat([text.states for text in texts]),
        mask=None if masks[0] is None else torch.cat([mask for mask in masks if mask is not None]),
    )
