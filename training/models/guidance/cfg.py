"""Classifier-free guidance with the negative prompt in place of the null prompt, at one step.

Dimensions: B images, C latent channels, h x w latent size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.models.text_embeddings import TextEmbeddings


def cfg_x0(
    predict: Callable[[TextEmbeddings], torch.Tensor], positive: TextEmbeddings, negative: TextEmbeddings, scale: float
) -> torch.Tensor:
    """x0(neg) + scale (x0(pos) - x0(neg)), (B, C, h, w).

    Args:
        predict: x0 for B prompts.
        negative: one row or B.
        scale: 1 is the unmodified model.
    """
    base = predict(negative if len(negative) == len(positive) else negative.expand(len(positive)))
    return base + scale * (predict(positive) - base)
