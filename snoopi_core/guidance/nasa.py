"""NASA, Negative-Away Steer Attention (SNOOPI, arXiv 2412.02687, Section 4, Figure 4).

Dimensions: R positive rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

import torch


def nasa_change(z_neg: torch.Tensor, alpha: float | torch.Tensor) -> torch.Tensor:
    """What NASA adds to Z+: -alpha Z-.

    Algorithm 1:  Z_NASA = Z+ - alpha * Z-,  on the concatenated heads and *before* the output
    projection, so that the projection's bias is added once.

    Args:
        z_neg: Z- = softmax(Q K-^T / sqrt(D)) V-, from the same Q, W_k and W_v as Z+, shape (R, N, C).
        alpha: strength; 0 is the unmodified model. A float, or a tensor that broadcasts to (R, N, C).

    Returns:
        Z_NASA - Z+, shape (R, N, C).
    """
    return z_neg * -alpha
