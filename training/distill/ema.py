"""The running mean of the student's weights (EMA), which is what samples are drawn from and what is exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class EMA:
    """Means of weights, beside them and spread over processes as they are."""

    def __init__(self, weights: list[nn.Parameter], decay: float) -> None:
        self.weights, self.decay, self.updates = weights, decay, 0
        self.means = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def update(self) -> None:
        """mean <- d mean + (1 - d) weight; d rises to `decay` as (1 + n) / (10 + n), so that the start is forgotten."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates))
        for mean, weight in zip(self.means, self.weights, strict=True):
            mean.lerp_(weight, 1 - decay)

    @torch.no_grad()
    def load(self, updates: int) -> None:
        """Take the weights as they are for means of so many updates."""
        self.updates = updates
        for mean, weight in zip(self.means, self.weights, strict=True):
            mean.copy_(weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The means in the weights' place, and the weights in theirs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, weight in zip(self.means, self.weights, strict=True):
            kept = weight.detach().clone()
            weight.copy_(mean)
            mean.copy_(kept)
