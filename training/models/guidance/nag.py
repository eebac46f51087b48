"""NAG, Normalized Attention Guidance (arXiv 2505.21179), inside a diffusers network."""

from __future__ import annotations

import torch

from snoopi_core.guidance.nag import BLEND, TAU, nag_change
from training.models.guidance.attention import GuidanceProcessor
from training.models.text_embeddings import TextEmbeddings


class NagProcessor(GuidanceProcessor):
    """`nag_change` with phi as the strength."""

    def __init__(self, negative: TextEmbeddings, strength: float, *, tau: float = TAU, blend: float = BLEND) -> None:
        super().__init__(negative, strength)
        self.tau, self.blend = tau, blend

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        return z_pos + nag_change(z_pos, z_neg, self.strength, tau=self.tau, blend=self.blend)
