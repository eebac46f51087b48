"""NAG, Normalized Attention Guidance (arXiv 2505.21179), inside a diffusers network.

Dimensions: B batch rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

import torch

from training.models.guidance.attention import GuidanceProcessor

TAU, BLEND = 2.5, 0.375  # the paper's, for both Stable Diffusion 1.5 (phi 2) and PixArt (phi 4)


def normalized_guidance(
    z_pos: torch.Tensor, z_neg: torch.Tensor, phi: float, *, tau: float = TAU, blend: float = BLEND
) -> torch.Tensor:
    """Extrapolate away from the negative's response, limit the growth of its norm, and blend with the positive's.

    Zt = Z+ + phi (Z+ - Z-);   R = |Zt|_1 / |Z+|_1 per token;   Zh = min(R, tau) / R * Zt;   Z = a Zh + (1 - a) Z+

    Args:
        z_pos, z_neg: as in `snoopi_core.guidance.nasa.steer_away`, (B, N, C).
        phi: strength; 0 is the unmodified model.
        tau: the largest factor by which a token's norm may grow.
        blend: a.
    """
    guided = z_pos + phi * (z_pos - z_neg)
    ratio = guided.abs().sum(dim=-1, keepdim=True) / z_pos.abs().sum(dim=-1, keepdim=True).clamp_min(1e-12)
    bounded = guided * (ratio.clamp_max(tau) / ratio.clamp_min(1e-12))
    return blend * bounded + (1 - blend) * z_pos


class NagProcessor(GuidanceProcessor):
    """`normalized_guidance` of Z+ and Z-, with phi as the strength."""

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        return normalized_guidance(z_pos, z_neg, self.strength)
