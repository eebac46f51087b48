"""Orthogonal negative guidance (arXiv 2605.29390), inside a diffusers network: what NASA is compared with.

Dimensions: B batch rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training.diffusers_nasa import NasaProcessor, processed
from training.text import Text


def orthogonal_part(z_neg: torch.Tensor, z_pos: torch.Tensor) -> torch.Tensor:
    """What of Z- is at right angles to Z+, token by token: Z- - (Z- . Z+ / |Z+|^2) Z+, (B, N, C)."""
    along = (z_neg * z_pos).sum(dim=-1, keepdim=True) / z_pos.square().sum(dim=-1, keepdim=True).clamp_min(1e-12)
    return z_neg - along * z_pos


class OrthogonalProcessor(NasaProcessor):
    """As NASA's, but what the prompts have in common stays: Z = Z+ - alpha Z-_orthogonal."""

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        return z_pos - self.alpha * orthogonal_part(z_neg, z_pos)


@contextmanager
def orthogonal(network: nn.Module, negative: Text, alpha: float) -> Iterator[nn.Module]:
    """Steer `network` away from `negative` while the context lasts; at alpha = 0 nothing is attached.

    Args:
        negative: the encoded negative prompt, of one row or B.

    Raises:
        ValueError: the network has no cross-attention layer.
    """
    if alpha == 0:
        yield network
        return
    with processed(network, OrthogonalProcessor(negative, alpha)):
        yield network
