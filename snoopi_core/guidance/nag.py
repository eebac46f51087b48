"""NAG, Normalized Attention Guidance (arXiv 2505.21179, Section 4.2).

Dimensions: R positive rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

import torch

TAU, BLEND = 2.5, 0.375
"""The paper's values of tau and of its alpha, for Stable Diffusion 1.5 (phi 2) and PixArt (phi 4)."""
_TINY = 1e-12


def nag_change(
    z_pos: torch.Tensor, z_neg: torch.Tensor, phi: float | torch.Tensor, *, tau: float = TAU, blend: float = BLEND
) -> torch.Tensor:
    """What NAG adds to Z+: extrapolate away from Z-, limit the growth of the norm, blend with Z+.

    Zt = Z+ + phi (Z+ - Z-);   R = |Zt|_1 / |Z+|_1 per token;   Zh = min(R, tau) / R * Zt;   Z = a Zh + (1 - a) Z+

    Args:
        z_pos, z_neg: Z+ and Z-, (R, N, C).
        phi: strength; 0 is the unmodified model. Programs that ask for a "NAG scale" mean phi + 1.
        tau: the largest factor by which a token's L1 norm may grow.
        blend: a.

    Returns:
        Z - Z+, (R, N, C).
    """
    guided = z_pos + phi * (z_pos - z_neg)
    ratio = _l1_norm(guided) / _l1_norm(z_pos).clamp_min(_TINY)
    bounded = guided * (ratio.clamp_max(tau) / ratio.clamp_min(_TINY)).to(guided.dtype)
    return blend * (bounded - z_pos)


def _l1_norm(z: torch.Tensor) -> torch.Tensor:
    """(R, N, 1), in fp32 or better: the sum of a token's channels can exceed the range of fp16."""
    return z.abs().sum(dim=-1, keepdim=True, dtype=torch.promote_types(z.dtype, torch.float32))
