"""Noise levels of a run, in fp32: in half precision sigma_t is wrong by 100 % at t = 0."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from training.config import Recipe


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """alpha_t and sigma_t for every training timestep, (num_train_timesteps,), and at the student's T."""

    alpha: torch.Tensor
    sigma: torch.Tensor
    alpha_T: float
    sigma_T: float

    @classmethod
    def from_schedule(cls, alphas_cumprod: torch.Tensor, recipe: Recipe) -> NoiseLevels:
        """Noise levels of a teacher's schedule, alphas_cumprod (num_train_timesteps,) fp32.

        Raises:
            ValueError: student.timestep or loop.t_max lies outside the schedule.
        """
        last = len(alphas_cumprod) - 1
        for name, t in (("student.timestep", recipe.student.timestep), ("loop.t_max", recipe.loop.t_max)):
            if t > last:
                raise ValueError(
                    f"{name} is {t}, but the teacher's last timestep is {last}; give {name}={last} or less"
                )
        power_T = recipe.student.alpha_T_squared or alphas_cumprod[recipe.student.timestep].item()
        return cls(
            alpha=alphas_cumprod.sqrt(),
            sigma=(1 - alphas_cumprod).sqrt(),
            alpha_T=power_T**0.5,
            sigma_T=(1 - power_T) ** 0.5,
        )

    def to(self, device: torch.device) -> NoiseLevels:
        return replace(self, alpha=self.alpha.to(device), sigma=self.sigma.to(device))

    def at(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(alpha_t, sigma_t), each (B, 1, 1, 1), for timesteps t (B,)."""
        return self.alpha[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)
