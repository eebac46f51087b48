"""Orthogonal negative guidance (arXiv 2605.29390), inside a diffusers network: what NASA is compared with.

Dimensions: B batch rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

import torch

from training.models.guidance.nasa import NasaProcessor


def orthogonal_part(z_neg: torch.Tensor, z_pos: torch.Tensor) -> torch.Tensor:
    """What of Z- is at right angles to Z+, token by token: Z- - (Z- . Z+ / |Z+|^2) Z+, (B, N, C)."""
    along = (z_neg * z_pos).sum(dim=-1, keepdim=True) / z_pos.square().sum(dim=-1, keepdim=True).clamp_min(1e-12)
    return z_neg - along * z_pos


class OrthogonalProcessor(NasaProcessor):
    """As NASA's, but what the prompts have in common stays: Z = Z+ - alpha Z-_orthogonal."""

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        return z_pos - self.alpha * orthogonal_part(z_neg, z_pos)
