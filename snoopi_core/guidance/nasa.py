"""NASA, Negative-Away Steer Attention (SNOOPI, arXiv 2412.02687, Section 4, Figure 4).

Dimensions: B batch rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

import torch


def steer_away(z_pos: torch.Tensor, z_neg: torch.Tensor, alpha: float | torch.Tensor) -> torch.Tensor:
    """Subtract the negative prompt's cross-attention response from the positive one's.

    Algorithm 1:  Z_NASA = Z+ - alpha * Z-,  on the concatenated heads and *before* the output
    projection, so that the projection's bias is added once.

    Args:
        z_pos: Z+ = softmax(Q K+^T / sqrt(D)) V+, shape (B, N, C).
        z_neg: Z- = softmax(Q K-^T / sqrt(D)) V-, from the same Q, W_k and W_v, shape (B, N, C).
        alpha: strength; 0 is the unmodified model. A float, or a tensor that broadcasts to (B, N, C).

    Returns:
        Z_NASA, shape (B, N, C), in the dtype of `z_pos`.
    """
    return z_pos - alpha * z_neg
