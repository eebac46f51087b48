"""Encoded prompts as networks take them: embeddings, and for T5 a mask of the tokens.

Dimensions: B prompts, S tokens, E text width, P pooled width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class TextEmbeddings:
    """states (B, S, E), and mask (B, S) bool, False for padding; None if padding is not masked (CLIP).

    pooled (B, P): one vector for each prompt, which only SDXL takes; None for other families.
    """

    states: torch.Tensor
    mask: torch.Tensor | None = None
    pooled: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice) -> TextEmbeddings:
        return self._map(lambda part: part[rows])

    def expand(self, count: int) -> TextEmbeddings:
        """One prompt repeated `count` times."""
        return self._map(lambda part: part.expand(count, *part.shape[1:]))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> TextEmbeddings:
        """Move all parts to `device`, and all but the mask to `dtype`."""
        return self._map(lambda part: part.to(device, None if part.dtype == torch.bool else dtype))

    def where(self, chosen: torch.Tensor, other: TextEmbeddings) -> TextEmbeddings:
        """The rows of `other` (one or B) where chosen (B,) is True, otherwise these."""
        return TextEmbeddings(
            states=torch.where(chosen.view(-1, 1, 1), other.states, self.states),
            mask=None if self.mask is None else torch.where(chosen.view(-1, 1), other.mask, self.mask),
            pooled=None if self.pooled is None else torch.where(chosen.view(-1, 1), other.pooled, self.pooled),
        )

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TextEmbeddings:
        parts = {"states": self.states, "mask": self.mask, "pooled": self.pooled}
        return TextEmbeddings(**{name: change(part) for name, part in parts.items() if part is not None})


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
    pooled = [text.pooled for text in texts if text.pooled is not None]
    joined = torch.cat(pooled) if pooled else None
    if not masks:
        return TextEmbeddings(states=torch.cat(states), pooled=joined)
    padded = [functional.pad(mask, (0, count)) for mask, count in zip(masks, missing, strict=True)]
    return TextEmbeddings(states=torch.cat(states), mask=torch.cat(padded), pooled=joined)
