"""Subtract the negative prompt's text embeddings from the positive's.

Dimensions: B images, C latent channels, h x w latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from training.models.text_embeddings import TextEmbeddings


def subtracted_x0(
    predict: Callable[[TextEmbeddings], torch.Tensor], positive: TextEmbeddings, negative: TextEmbeddings, scale: float
) -> torch.Tensor:
    """x0(e+ - scale e-), (B, C, h, w); scale 0 is the unmodified model. `predict` returns x0 for B prompts."""
    return predict(replace(positive, states=positive.states - scale * negative.states))
