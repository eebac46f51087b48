"""How informative a negative is, before anything is steered: ||Z-|| / ||Z+|| and cos(Z+, Z-) of its pair.

Dimensions: B batch rows, N image tokens, C = heads x head width.
"""

from __future__ import annotations

import torch

from experiments.shapes.measure import Pair
from experiments.shapes.sampling import OneStep
from snoopi_core.guidance.strength import Response
from training.models.backbone import Backbone
from training.models.guidance.attention import GuidanceProcessor, attach
from training.models.text_embeddings import TextEmbeddings


class _Observer(GuidanceProcessor):
    """Changes nothing, and adds up what it sees of all layers."""

    is_neutral = False

    def __init__(self, negative: TextEmbeddings) -> None:
        super().__init__(negative, 0.0)
        self.response = Response()

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        self.response.add(z_pos, z_neg)
        return z_pos


def strength(model: Backbone, pair: Pair, seeds: list[int]) -> dict[str, float]:
    """`ratio` and `cosine` of Z- to Z+ over all cross-attentions, tokens and seeds of the plain one-step picture."""
    observer = _Observer(model.encode([pair.negative]))
    with torch.no_grad(), attach(model.network, observer):
        OneStep(model=model, method="none")([pair.prompt] * len(seeds), seeds)
    return {"ratio": observer.response.ratio, "cosine": observer.response.cosine}
