"""Orthogonal negative guidance (arXiv 2605.29390), inside a diffusers network."""

from __future__ import annotations

import torch

from snoopi_core.guidance.orthogonal import orthogonal_change
from training.models.guidance.attention import GuidanceProcessor


class OrthogonalProcessor(GuidanceProcessor):
    """Z = Z+ - alpha Z-_orthogonal: what both prompts have in common is kept."""

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        return z_pos + orthogonal_change(z_pos, z_neg, self.strength)
