"""Orthogonal negative guidance (arXiv 2605.29390), inside a diffusers network.

Dimensions: B batch rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

import torch

from training.models.guidance.attention import GuidanceProcessor


def orthogonal_part(z_neg: torch.Tensor, z_pos: torch.Tensor) -> torch.Tensor:
    """The component of Z- orthogonal to Z+, token by token: Z- - (Z- . Z+ / |Z+|^2) Z+, (B, N, C)."""
    along = (z_neg * z_pos).sum(dim=-1, keepdim=True) / z_pos.square().sum(dim=-1, keepdim=True).clamp_min(1e-12)
    return z_neg - along * z_pos


class OrthogonalProcessor(GuidanceProcessor):
    """Z = Z+ - alpha Z-_orthogonal: what both prompts have in common is kept."""

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        return z_pos - self.strength * orthogonal_part(z_neg, z_pos)
