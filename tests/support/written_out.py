"""The formulas of methods other than NASA, written from their papers, and their settings in tests.

Dimensions: B batch rows, N image tokens, C channels.
"""

from __future__ import annotations

import torch

VSF_BETA, NAG_TAU, NAG_BLEND = 0.4, 1.2, 0.4
"""Settings of the methods in tests; tau is low enough that it limits some tokens."""


def by_nag(z: torch.Tensor, z_neg: torch.Tensor, phi: float) -> torch.Tensor:
    """Z of NAG (arXiv 2505.21179, Equations 7 to 9)."""
    far = z + phi * (z - z_neg)
    ratio = far.abs().sum(-1, keepdim=True) / z.abs().sum(-1, keepdim=True)
    return NAG_BLEND * far * torch.minimum(ratio, torch.full_like(ratio, NAG_TAU)) / ratio + (1 - NAG_BLEND) * z


def by_orthogonal(z: torch.Tensor, z_neg: torch.Tensor, alpha: float) -> torch.Tensor:
    """Z - alpha (the part of Z- that is orthogonal to Z)."""
    unit = z / z.norm(dim=-1, keepdim=True)
    return z - alpha * (z_neg - torch.einsum("bnc,bnc->bn", z_neg, unit)[..., None] * unit)
