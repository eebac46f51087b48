"""VSF, Value Sign Flip (arXiv 2508.10931, Section 3): one attention to both prompts, the negative's values negated.

Dimensions: R positive rows, N image tokens, T text tokens, C = H * D concatenated heads.

    Z = softmax([Q K+^T / sqrt(D),  Q K-^T / sqrt(D) - beta]) [V+, -scale V-]

With m, the share of the negative's tokens in this softmax at beta 0, the same is a function of Z+ and Z-:

    m' = m e^-beta / (1 - m + m e^-beta);   Z = (1 - m') Z+ - scale m' Z-

`share_values` gives the values of an attention to both prompts that returns m.
"""

from __future__ import annotations

import math

import torch


def share_values(v_pos: torch.Tensor, v_neg: torch.Tensor) -> torch.Tensor:
    """Values for the keys [K+, K-], (R, T+ + T-, C), with which an attention returns m: 0 for the prompt's tokens, 1
    for the negative's."""
    return torch.cat([torch.zeros_like(v_pos), torch.ones_like(v_neg)], dim=1)


def vsf_change(
    z_pos: torch.Tensor, z_neg: torch.Tensor, share: torch.Tensor, scale: float | torch.Tensor, *, beta: float = 0.0
) -> torch.Tensor:
    """What VSF adds to Z+:  -m' (Z+ + scale Z-).

    At scale 0 the negative still takes attention from the prompt, so no scale is the unmodified model.

    Args:
        z_pos, z_neg: Z+ and Z-, (R, N, C).
        share: m, (R, N, C), the same for all channels of a head.
        scale: strength.
        beta: subtracted from the scores of the negative's tokens.

    Returns:
        Z - Z+, (R, N, C).
    """
    if beta:
        wide = share.to(torch.promote_types(share.dtype, torch.float32))  # e^20 exceeds the range of fp16
        weight = wide * math.exp(-beta)
        share = (weight / (1.0 - wide + weight)).to(share.dtype)
    return -share * (z_pos + scale * z_neg)
