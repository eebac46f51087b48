"""VSF, Value Sign Flip (arXiv 2508.10931), inside a diffusers network: what NASA is compared with.

Dimensions: B batch rows, H heads, N image tokens, T text tokens, D head width, C = H * D, E text width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from training.diffusers_nasa import NasaProcessor, attend_to, processed
from training.text import Text


class VsfProcessor(NasaProcessor):
    """One softmax over both prompts' tokens, the negative's values with their sign flipped.

    Z = softmax(Q [K+, K-]^T / sqrt(D)) [V+, -alpha V-]
    """

    def respond(
        self,
        attn: Attention,
        query: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor,
        mask: torch.Tensor | None,
        negative_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        key = torch.cat([attn.to_k(positive), attn.to_k(negative)], dim=1)
        value = torch.cat([attn.to_v(positive), -self.alpha * attn.to_v(negative)], dim=1)
        if mask is not None or negative_mask is not None:  # added to the scores: 0 hides nothing
            none = [query.new_zeros(len(query), 1, text.shape[1]) for text in (positive, negative)]
            given = [none[n] if each is None else each for n, each in enumerate((mask, negative_mask))]
            mask = torch.cat(given, dim=2)
        return attend_to(attn, query, key, value, mask)


@contextmanager
def vsf(network: nn.Module, negative: Text, alpha: float) -> Iterator[nn.Module]:
    """Steer `network` away from `negative` while the context lasts.

    Args:
        negative: the encoded negative prompt, of one row or B.
        alpha: strength. At 0 the negative still draws attention from the positive: that is no plain model.

    Raises:
        ValueError: the network has no cross-attention layer.
    """
    with processed(network, VsfProcessor(negative, alpha)):
        yield network
