"""NASA inside a diffusers network: every cross-attention returns Z+ - alpha Z- (SNOOPI, arXiv 2412.02687, Section 4).

Dimensions: B batch rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from snoopi_core.guidance.nasa import nasa_change
from training.models.guidance.attention import GuidanceProcessor, attach
from training.models.text_embeddings import TextEmbeddings


class NasaProcessor(GuidanceProcessor):
    """Z = Z+ - alpha Z-."""

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        return z_pos + nasa_change(z_neg, self.strength)


def nasa(network: nn.Module, negative: TextEmbeddings, alpha: float) -> AbstractContextManager[nn.Module]:
    """Steer `network` away from `negative` inside the context; see `attach` for the arguments."""
    return attach(network, NasaProcessor(negative, alpha))
