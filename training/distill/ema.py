"""Exponential moving average of the student's weights: used for samples and exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class EMA:
    """Averages of weights, sharded over processes as the weights are."""

    def __init__(self, weights: list[nn.Parameter], decay: float) -> None:
        self.weights, self.decay, self.updates = weights, decay, 0
        self.means = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def update(self) -> None:
        """mean <- d mean + (1 - d) weight; d rises to `decay` as (1 + n) / (10 + n), so early weights are forgotten."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates))
        for mean, weight in zip(self.means, self.weights, strict=True):
            mean.lerp_(weight, 1 - decay)

    @torch.no_grad()
    def load(self, updates: int) -> None:
        """Set the averages to the current weights, as after `updates` updates."""
        self.updates = updates
        for mean, weight in zip(self.means, self.weights, strict=True):
            mean.copy_(weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside this context, the network has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, weight in zip(self.means, self.weights, strict=True):
            swapped = weight.detach().clone()
            weight.copy_(mean)
            mean.copy_(swapped)
