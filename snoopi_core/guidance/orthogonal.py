"""Orthogonal negative guidance (arXiv 2605.29390): as NASA, but what Z- has in common with Z+ is kept.

Dimensions: R positive rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

import torch

_TINY = 1e-12


def orthogonal_change(z_pos: torch.Tensor, z_neg: torch.Tensor, alpha: float | torch.Tensor) -> torch.Tensor:
    """What is added to Z+, token by token:  -alpha (Z- - (Z- . Z+ / |Z+|^2) Z+).

    Args:
        z_pos, z_neg: Z+ and Z-, (R, N, C).
        alpha: strength; 0 is the unmodified model.

    Returns:
        Z - Z+, (R, N, C); its product with Z+ is 0 for each token.
    """
    # In fp32 or better: the sums can exceed the range of fp16.
    dtype = torch.promote_types(z_pos.dtype, torch.float32)
    wide = z_pos.to(dtype)
    along = (z_neg * wide).sum(dim=-1, keepdim=True) / wide.square().sum(dim=-1, keepdim=True).clamp_min(_TINY)
    return (z_neg - along.to(z_pos.dtype) * z_pos) * -alpha
