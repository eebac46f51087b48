"""Randomness that belongs to an iteration, not to a process.

Every iteration draws from a generator seeded by (seed, iteration), on the CPU. A resumed run therefore needs no saved
random state, and a GPU run sees the same numbers as a CPU run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from training.config import Recipe


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator for one purpose, independent of every other purpose."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@dataclass(frozen=True, kw_only=True)
class LoraDraws:
    """Random numbers of one LoRA-teacher update: t (B,) int64, eps (B, C, h, w), drop (B,) bool."""

    t: torch.Tensor
    eps: torch.Tensor
    drop: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random numbers of one PG-SB iteration.

    kappa: one guidance scale for the whole batch and both teachers. z, eps: (B, C, h, w) fp32. t: (B,) int64.
    """

    kappa: float
    z: torch.Tensor
    t: torch.Tensor
    eps: torch.Tensor
    lora: tuple[LoraDraws, ...]


def draw(recipe: Recipe, iteration: int, *, channels: int, num_train_timesteps: int, device: torch.device) -> Draws:
    """All random numbers of `iteration`, moved to `device`."""
    rng = generator(recipe.seed, "iteration", iteration)
    batch, size = recipe.loop.batch_size, recipe.loop.latent_size
    shape = (batch, channels, size, size)
    low, high = recipe.guidance.kappa_min, recipe.guidance.kappa_max
    kappa = low + (high - low) * torch.rand((), generator=rng).item()
    z = torch.randn(shape, generator=rng)
    t = torch.randint(recipe.loop.t_min, recipe.loop.t_max + 1, (batch,), generator=rng)
    eps = torch.randn(shape, generator=rng)
    lora = tuple(
        LoraDraws(
            t=torch.randint(0, num_train_timesteps, (batch,), generator=rng).to(device),
            eps=torch.randn(shape, generator=rng).to(device),
            drop=(torch.rand(batch, generator=rng) < recipe.lora.condition_dropout).to(device),
        )
        for _ in range(recipe.lora.updates)
    )
    return Draws(kappa=kappa, z=z.to(device), t=t.to(device), eps=eps.to(device), lora=lora)
