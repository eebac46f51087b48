"""Random numbers of an iteration, independent of devices and processes.

Every iteration draws the numbers of the whole batch on the CPU, from a generator seeded by (seed, iteration), and a
process or micro-batch takes its rows. So no random state is saved, and a run gets the same numbers after a resume, on
any number of devices, and on a GPU as on a CPU.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch

from training.config import Recipe


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator for one purpose, independent of those for other purposes."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@dataclass(frozen=True, kw_only=True)
class LoraDraws:
    """Random numbers of one LoRA-teacher update: t (B,) int64, eps (B, C, h, w), drop (B,) bool."""

    t: torch.Tensor
    eps: torch.Tensor
    drop: torch.Tensor

    def rows(self, rows: slice, device: torch.device) -> LoraDraws:
        """The given rows, on `device`."""
        return LoraDraws(**{name: value[rows].to(device) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random numbers of one PG-SB iteration.

    kappa: guidance scale of both teachers (B,), equal for all rows of a process or of the batch. z, eps: (B, C, h, w)
    fp32. t: (B,) int64. nasa: for NASA-T only, alpha and the index of the negative prompt.
    """

    kappa: torch.Tensor
    z: torch.Tensor
    t: torch.Tensor
    eps: torch.Tensor
    lora: tuple[LoraDraws, ...]
    nasa: tuple[float, int] | None = None

    def rows(self, rows: slice, device: torch.device) -> Draws:
        """The given rows, on `device`."""
        taken = {name: getattr(self, name)[rows].to(device) for name in ("kappa", "z", "t", "eps")}
        return replace(self, **taken, lora=tuple(draws.rows(rows, device) for draws in self.lora))


def draw(recipe: Recipe, iteration: int, *, channels: int, num_train_timesteps: int, processes: int = 1) -> Draws:
    """All random numbers of `iteration`, for the whole batch, on the CPU."""
    rng = generator(recipe.seed, "iteration", iteration)
    batch, size = recipe.loop.batch_size, recipe.loop.latent_size
    shape = (batch, channels, size, size)
    kappa = _kappa(recipe, torch.rand((), generator=rng)).repeat(batch)
    z = torch.randn(shape, generator=rng)
    t = torch.randint(recipe.loop.t_min, recipe.loop.t_max + 1, (batch,), generator=rng)
    eps = torch.randn(shape, generator=rng)
    lora = tuple(
        LoraDraws(
            t=torch.randint(0, num_train_timesteps, (batch,), generator=rng),
            eps=torch.randn(shape, generator=rng),
            drop=torch.rand(batch, generator=rng) < recipe.lora.condition_dropout,
        )
        for _ in range(recipe.lora.updates)
    )
    if recipe.guidance.kappa_per == "rank" and processes > 1:
        uniform = torch.rand(processes, generator=generator(recipe.seed, "kappa", iteration))
        kappa = _kappa(recipe, uniform).repeat_interleave(batch // processes)
    return Draws(kappa=kappa, z=z, t=t, eps=eps, lora=lora, nasa=_nasa(recipe, iteration))


def kappa_of_processes(recipe: Recipe, draws: Draws, processes: int) -> dict[str, float]:
    """Each process's guidance scale by name, for the log; empty if all have the same. `draws`: of the whole batch."""
    guidance = recipe.guidance
    fixed = guidance.teacher_kappa is not None and guidance.lora_kappa is not None
    if guidance.kappa_per == "iteration" or processes == 1 or fixed:
        return {}
    return {f"kappa_{n}": kappas[0].item() for n, kappas in enumerate(draws.kappa.chunk(processes))}


def _kappa(recipe: Recipe, uniform: torch.Tensor) -> torch.Tensor:
    """kappa ~ U(kappa_min, kappa_max) (SNOOPI, Section 3)."""
    guidance = recipe.guidance
    return (guidance.kappa_min + (guidance.kappa_max - guidance.kappa_min) * uniform.double()).float()


def _nasa(recipe: Recipe, iteration: int) -> tuple[float, int] | None:
    """alpha ~ U(0, nasa_alpha_max) of NASA-T, and the index of the negative prompt."""
    if recipe.student.nasa_alpha_max == 0:
        return None
    rng = generator(recipe.seed, "nasa", iteration)
    alpha = recipe.student.nasa_alpha_max * torch.rand((), generator=rng).item()
    return alpha, int(torch.randint(len(recipe.student.nasa_negatives), (), generator=rng))
