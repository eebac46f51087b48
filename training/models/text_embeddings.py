"""Text as a network takes it: embeddings, and for T5 a mask of the tokens that are there.

Dimensions: B prompts, S tokens, E text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class TextEmbeddings:
    """Encoded prompts: states (B, S, E), and mask (B, S) bool, True where a token is; None where all count (CLIP)."""

    states: torch.Tensor
    mask: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice) -> TextEmbeddings:
        return TextEmbeddings(states=self.states[rows], mask=None if self.mask is None else self.mask[rows])

    def expand(self, count: int) -> TextEmbeddings:
        """One prompt, `count` times."""
        return TextEmbeddings(
            states=self.states.expand(count, -1, -1), mask=None if self.mask is None else self.mask.expand(count, -1)
        )

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> TextEmbeddings:
        """On `device`; the states, not the mask, in `dtype`."""
        return TextEmbeddings(
            states=self.states.to(device, dtype), mask=None if self.mask is None else self.mask.to(device=device)
        )

    def where(self, chosen: torch.Tensor, other: TextEmbeddings) -> TextEmbeddings:
        """`other`'s row, (1, ...) or (B, ...), wherever chosen (B,) is True, else this one's."""
        return TextEmbeddings(
            states=torch.where(chosen.view(-1, 1, 1), other.states, self.states),
            mask=None if self.mask is None else torch.where(chosen.view(-1, 1), other.mask, self.mask),
        )

    def padded(self, length: int) -> TextEmbeddings:
        """Lengthened with zeros that the mask leaves out; needs a mask."""
        missing = length - self.states.shape[1]
        if missing == 0:
            return self
        if self.mask is None or missing < 0:
            raise ValueError(
                f"{self.states.shape[1]} tokens cannot be padded to {length} (mask: {self.mask is not None})"
            )
        return TextEmbeddings(
            states=functional.pad(self.states, (0, 0, 0, missing)), mask=functional.pad(self.mask, (0, missing))
        )


def concat(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    """Rows of several, one after the other; shorter ones are padded where they have masks."""
    length = max(text.states.shape[1] for text in texts)
    texts = [text.padded(length) for text in texts]
    masks = [text.mask for text in texts]
    return TextEmbeddings(
        states=torch.cat([text.states for text in texts]),
        mask=None if masks[0] is None else torch.cat([mask for mask in masks if mask is not None]),
    )
