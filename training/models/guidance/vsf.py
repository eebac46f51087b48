"""VSF, Value Sign Flip (arXiv 2508.10931), inside a diffusers network.

Dimensions: B batch rows, H heads, N image tokens, T text tokens, D head width, C = H * D, E text width.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention

from training.models.guidance.attention import GuidanceProcessor, attend_to


class VsfProcessor(GuidanceProcessor):
    """One softmax over the tokens of both prompts, with the sign of the negative's values flipped.

    Z = softmax(Q [K+, K-]^T / sqrt(D)) [V+, -alpha V-]

    At alpha 0 the negative still takes attention from the positive, so no strength is neutral.
    """

    is_neutral = False

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
        value = torch.cat([attn.to_v(positive), -self.strength * attn.to_v(negative)], dim=1)
        if mask is not None or negative_mask is not None:  # masks are added to the scores: 0 hides nothing
            none = [query.new_zeros(len(query), 1, text.shape[1]) for text in (positive, negative)]
            given = [none[n] if each is None else each for n, each in enumerate((mask, negative_mask))]
            mask = torch.cat(given, dim=2)
        return attend_to(attn, query, key, value, mask)
