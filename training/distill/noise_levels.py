"""Noise levels of a run, in fp32: in half precision sigma_t is wrong by 100 % at t = 0."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from snoopi_core.formats.checkpoint import OneStepRecipe
from snoopi_core.one_step import Step
from training.config import Recipe


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """alpha_t and sigma_t for every training timestep, (num_train_timesteps,), and at the student's own steps."""

    alpha: torch.Tensor
    sigma: torch.Tensor
    steps: tuple[Step, ...]

    @property
    def alpha_T(self) -> float:
        return self.steps[0].alpha

    @property
    def sigma_T(self) -> float:
        return self.steps[0].sigma

    def sampling_recipe(self, recipe: Recipe) -> OneStepRecipe:
        """How the student of `recipe`, which these levels are of, is sampled."""
        student = recipe.student
        return OneStepRecipe(
            timesteps=student.steps,
            alpha_T=self.alpha_T,
            sigma_T=self.sigma_T,
            steps=student.transition if len(student.steps) > 1 else "consistency",
        )

    @classmethod
    def from_schedule(cls, alphas_cumprod: torch.Tensor, recipe: Recipe) -> NoiseLevels:
        """Noise levels of a teacher's schedule, alphas_cumprod (num_train_timesteps,) fp32.

        Raises:
            ValueError: a timestep of the student, loop.t_max or lora.t_max lies outside the schedule; or the student's
                second step has more noise than its first.
        """
        last = len(alphas_cumprod) - 1
        student = recipe.student
        first = student.steps[0]
        if first > last and student.timesteps:
            raise ValueError(
                f"student.timesteps begins at {first}, but the teacher's last timestep is {last}; give timesteps of "
                f"{last} or less"
            )
        for name, t in (
            ("student.timestep", first),
            ("loop.t_max", recipe.loop.t_max),
            ("lora.t_max", recipe.lora.t_max),
        ):
            if t is not None and t > last:
                raise ValueError(
                    f"{name} is {t}, but the teacher's last timestep is {last}; give {name}={last} or less"
                )
        powers = [alphas_cumprod[t].item() for t in student.steps]
        powers[0] = student.alpha_T_squared or powers[0]
        if len(powers) > 1 and powers[0] >= powers[1]:
            raise ValueError(
                f"student.alpha_T_squared {powers[0]:g} leaves less noise at timestep {first} than the teacher's "
                f"schedule has at {student.steps[1]}, the next step; give less than {powers[1]:g}, or leave it out"
            )
        return cls(
            alpha=alphas_cumprod.sqrt(),
            sigma=(1 - alphas_cumprod).sqrt(),
            steps=tuple(
                Step(t, power**0.5, (1 - power) ** 0.5) for t, power in zip(student.steps, powers, strict=True)
            ),
        )

    def to(self, device: torch.device) -> NoiseLevels:
        return replace(self, alpha=self.alpha.to(device), sigma=self.sigma.to(device))

    def at(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(alpha_t, sigma_t), each (B, 1, 1, 1), for timesteps t (B,)."""
        return self.alpha[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)
