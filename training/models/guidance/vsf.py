"""VSF, Value Sign Flip (arXiv 2508.10931), inside a diffusers network.

Dimensions: B batch rows, H heads, N image tokens, T text tokens, D head width, C = H * D, E text width.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention

from snoopi_core.guidance.vsf import share_values, vsf_change
from training.models.guidance.attention import GuidanceProcessor, attend_to
from training.models.text_embeddings import TextEmbeddings


class VsfProcessor(GuidanceProcessor):
    """One softmax over the tokens of both prompts, with the sign of the negative's values flipped.

    Z = softmax([Q K+^T / sqrt(D), Q K-^T / sqrt(D) - beta]) [V+, -scale V-]

    At scale 0 the negative still takes attention from the positive, so no strength is neutral.
    """

    is_neutral = False

    def __init__(self, negative: TextEmbeddings, strength: float, *, beta: float = 0.0) -> None:
        super().__init__(negative, strength)
        self.beta = beta

    def respond(
        self,
        attn: Attention,
        query: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor,
        mask: torch.Tensor | None,
        negative_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        (k_pos, v_pos), (k_neg, v_neg) = ((attn.to_k(text), attn.to_v(text)) for text in (positive, negative))
        z_pos = attend_to(attn, query, k_pos, v_pos, mask)
        z_neg = attend_to(attn, query, k_neg, v_neg, negative_mask)
        both = None
        if mask is not None or negative_mask is not None:  # masks are added to the scores: 0 hides nothing
            none = [query.new_zeros(len(query), 1, text.shape[1]) for text in (positive, negative)]
            both = torch.cat([none[n] if each is None else each for n, each in enumerate((mask, negative_mask))], dim=2)
        share = attend_to(attn, query, torch.cat([k_pos, k_neg], dim=1), share_values(v_pos, v_neg), both)
        return z_pos + vsf_change(z_pos, z_neg, share, self.strength, beta=self.beta)
