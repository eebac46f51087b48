"""The learning-rate schedule of the VAE and the teacher."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


def warmup_cosine(optimizer: torch.optim.Optimizer, lr: float, iterations: int) -> SequentialLR:
    """Linear warm-up over up to 100 iterations, then a cosine down to a hundredth of `lr`."""
    warmup = max(1, min(100, iterations // 10))
    falling = CosineAnnealingLR(optimizer, max(1, iterations - warmup), lr * 0.01)
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.05, 1.0, warmup), falling], [warmup])
