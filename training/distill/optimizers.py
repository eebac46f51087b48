"""Optimisers and learning rates. The rate is a function of the iteration, so there is no schedule to save."""

from __future__ import annotations

import torch
from torch import nn

from training.config import Recipe

_BETAS = (0.9, 0.999)


def make_optimizer(parameters: list[nn.Parameter], rate: float, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with the settings of SNOOPI, Section 3.

    Raises:
        ValueError: loop.optimizer is adamw8bit, and bitsandbytes is not installed.
    """
    decay = recipe.loop.weight_decay
    if recipe.loop.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit  # optional dependency
        except ImportError as error:
            raise ValueError("loop.optimizer=adamw8bit needs bitsandbytes: pip install bitsandbytes") from error
        return AdamW8bit(parameters, lr=rate, betas=_BETAS, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, betas=_BETAS, weight_decay=decay, fused=True)


def set_learning_rates(recipe: Recipe, iteration: int, **optimizers: torch.optim.Optimizer) -> None:
    """Set the rates of `iteration`. `optimizers` are named by their section of the recipe: student, lora."""
    loop = recipe.loop
    rise = min(1.0, (iteration + 1) / loop.warmup) if loop.warmup else 1.0
    fall = min(1.0, (loop.iterations - iteration) / loop.cooldown) if loop.cooldown else 1.0
    for section, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = getattr(recipe, section).learning_rate * rise * fall
