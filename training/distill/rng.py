"""Random numbers of an iteration, independent of devices and processes.

Every iteration draws the numbers of the whole batch on the CPU, from a generator seeded by (seed, iteration), and a
process or micro-batch takes its rows. So no random state is saved, and a run gets the same numbers after a resume, on
any number of devices, and on a GPU as on a CPU.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from training.config import Recipe


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator for one purpose, independent of those for other purposes."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@dataclass(frozen=True, kw_only=True)
class ImageDraws:
    """Random numbers of a batch of the student's images.

    z: (B, C, h, w) fp32, pure noise. step: number of the step whose x0 is taken, the same for the whole batch. noise:
    of the transitions before it, each (B, C, h, w) fp32; none of them if transitions are deterministic.
    """

    z: torch.Tensor
    step: int = 0
    noise: tuple[torch.Tensor, ...] = ()

    def rows(self, rows: slice, device: torch.device) -> Self:
        """The given rows, on `device`."""
        return replace(self, **_rows(self, ("z",), rows, device), noise=tuple(n[rows].to(device) for n in self.noise))


@dataclass(frozen=True, kw_only=True)
class NoiseDraws:
    """A timestep and noise: t (B,) int64, eps (B, C, h, w)."""

    t: torch.Tensor
    eps: torch.Tensor

    def rows(self, rows: slice, device: torch.device) -> NoiseDraws:
        """The given rows, on `device`."""
        return replace(self, **_rows(self, ("t", "eps"), rows, device))


@dataclass(frozen=True, kw_only=True)
class LoraDraws:
    """Random numbers of one LoRA-teacher update: t (B,) int64, eps (B, C, h, w), drop (B,) bool.

    images: of a batch of its own; None if the update uses the student's.
    """

    t: torch.Tensor
    eps: torch.Tensor
    drop: torch.Tensor
    images: ImageDraws | None = None

    def rows(self, rows: slice, device: torch.device) -> LoraDraws:
        """The given rows, on `device`."""
        images = None if self.images is None else self.images.rows(rows, device)
        return replace(self, **_rows(self, ("t", "eps", "drop"), rows, device), images=images)


@dataclass(frozen=True, kw_only=True)
class Draws(ImageDraws):
    """Random numbers of one PG-SB iteration.

    kappa: guidance scale of both teachers (B,), equal for all rows of a process or of the batch. eps: (B, C, h, w)
    fp32. t: (B,) int64. nasa: for NASA-T only, alpha and the index of the negative prompt. guidance: for Decoupled DMD
    only, the noise at which the teachers are compared in what guidance adds.
    """

    kappa: torch.Tensor
    t: torch.Tensor
    eps: torch.Tensor
    lora: tuple[LoraDraws, ...]
    nasa: tuple[float, int] | None = None
    guidance: NoiseDraws | None = None

    def rows(self, rows: slice, device: torch.device) -> Draws:
        """The given rows, on `device`."""
        lora = tuple(draws.rows(rows, device) for draws in self.lora)
        guidance = None if self.guidance is None else self.guidance.rows(rows, device)
        own = _rows(self, ("kappa", "t", "eps"), rows, device)
        return replace(super().rows(rows, device), **own, lora=lora, guidance=guidance)


def draw(
    recipe: Recipe,
    iteration: int,
    *,
    channels: int,
    num_train_timesteps: int,
    processes: int = 1,
    step: int | None = None,
) -> Draws:
    """All random numbers of `iteration`, for the whole batch, on the CPU. `step`: in place of a random one."""
    rng = generator(recipe.seed, "iteration", iteration)
    batch, size = recipe.loop.batch_size, recipe.loop.latent_size
    shape = (batch, channels, size, size)
    kappa = _kappa(recipe, torch.rand((), generator=rng)).repeat(batch)
    z = torch.randn(shape, generator=rng)
    loop, section = recipe.loop, recipe.lora
    last = num_train_timesteps - 1 if section.t_max is None else section.t_max
    t = torch.randint(loop.t_min, loop.t_max + 1, (batch,), generator=rng)
    t = _shifted(t, loop.t_min, loop.t_max, loop.t_shift, generator(recipe.seed, "shift", iteration))
    eps = torch.randn(shape, generator=rng)
    fresh = recipe.lora.batches == "fresh"
    lora = tuple(
        LoraDraws(
            t=_shifted(
                torch.randint(section.t_min, last + 1, (batch,), generator=rng),
                section.t_min,
                last,
                section.t_shift,
                generator(recipe.seed, "shift", iteration, "lora", number),
            ),
            eps=torch.randn(shape, generator=rng),
            drop=torch.rand(batch, generator=rng) < recipe.lora.condition_dropout,
            images=_fresh_images(recipe, shape, step, iteration, number) if fresh and number else None,
        )
        for number in range(recipe.lora.updates)
    )
    if recipe.guidance.kappa_per == "rank" and processes > 1:
        uniform = torch.rand(processes, generator=generator(recipe.seed, "kappa", iteration))
        kappa = _kappa(recipe, uniform).repeat_interleave(batch // processes)
    step, noise = _steps(recipe, shape, step, "student", iteration)
    return Draws(
        kappa=kappa,
        z=z,
        t=t,
        eps=eps,
        lora=lora,
        nasa=_nasa(recipe, iteration),
        guidance=_guidance(recipe, shape, recipe.student.steps[step], iteration),
        step=step,
        noise=noise,
    )


def _shifted(t: torch.Tensor, low: int, high: int, shift: float, rng: torch.Generator) -> torch.Tensor:
    """Timesteps of {low..high} whose share u of the range, uniform in [0, 1), becomes s u / (1 + (s - 1) u)
    (Esser et al. 2024, arXiv 2403.03206, equation 23); t (B,) int64, drawn uniformly, which s = 1 leaves as it is."""
    if shift == 1:
        return t
    size = high - low + 1
    u = (t - low + torch.rand(t.shape, generator=rng, dtype=torch.float64)) / size
    return low + (size * shift * u / (1 + (shift - 1) * u)).long().clamp(max=size - 1)


def fresh_batches(recipe: Recipe) -> int:
    """Number of batches of prompts that an iteration takes for the LoRA teacher alone."""
    return recipe.lora.updates - 1 if recipe.lora.batches == "fresh" else 0


def _fresh_images(recipe: Recipe, shape: tuple[int, ...], step: int | None, iteration: int, number: int) -> ImageDraws:
    """Of the LoRA teacher's update `number`; from a generator of its own, so that no other draw depends on them."""
    z = torch.randn(shape, generator=generator(recipe.seed, "fresh z", iteration, number))
    step, noise = _steps(recipe, shape, step, "fresh", iteration, number)
    return ImageDraws(z=z, step=step, noise=noise)


def _steps(
    recipe: Recipe, shape: tuple[int, ...], step: int | None, *purpose: int | str
) -> tuple[int, tuple[torch.Tensor, ...]]:
    """A random step of the student, and the noise of the transitions before it."""
    student, count = recipe.student, len(recipe.student.steps)
    if step is None:
        limits = torch.tensor(student.step_weights or [1.0] * count, dtype=torch.float64).cumsum(0)
        drawn = torch.rand((), generator=generator(recipe.seed, "step", *purpose), dtype=torch.float64)
        step = int((limits / limits[-1] <= drawn).sum())
    if student.transition == "euler":
        return step, ()
    rngs = (generator(recipe.seed, "transition", number, *purpose) for number in range(1, step + 1))
    return step, tuple(torch.randn(shape, generator=rng) for rng in rngs)


def _rows(draws: Any, names: tuple[str, ...], rows: slice, device: torch.device) -> dict[str, torch.Tensor]:
    return {name: getattr(draws, name)[rows].to(device) for name in names}


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


def _guidance(recipe: Recipe, shape: tuple[int, ...], before: int, iteration: int) -> NoiseDraws | None:
    """Decoupled DMD: t ~ U{loop.t_min..loop.t_max}, but less than the timestep `before` of the student's step: coarser
    parts of the image than that step decides are decided (arXiv 2511.22677, where t counts the other way)."""
    if not recipe.guidance.decoupled:
        return None
    rng = generator(recipe.seed, "guidance", iteration)
    t = torch.randint(recipe.loop.t_min, min(recipe.loop.t_max + 1, before), shape[:1], generator=rng)
    return NoiseDraws(t=t, eps=torch.randn(shape, generator=rng))


def _nasa(recipe: Recipe, iteration: int) -> tuple[float, int] | None:
    """alpha ~ U(0, nasa_alpha_max) of NASA-T, and the index of the negative prompt."""
    if recipe.student.nasa_alpha_max == 0:
        return None
    rng = generator(recipe.seed, "nasa", iteration)
    alpha = recipe.student.nasa_alpha_max * torch.rand((), generator=rng).item()
    return alpha, int(torch.randint(len(recipe.student.nasa_negatives), (), generator=rng))
