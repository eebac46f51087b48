"""One iteration of PG-SB (SNOOPI, arXiv 2412.02687, Section 3): a student update, then the LoRA teacher's.

Dimensions: B batch rows, C latent channels, h x w latent size, S text tokens, E text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from snoopi_core.one_step import eps_from_output, x0_from_output
from training.clip import ClipJudge
from training.config import Recipe
from training.losses import add_noise, guide, lora_loss, score_gap, vsd_loss
from training.noise import Draws, LoraDraws
from training.players import Teachers


class NotFinite(RuntimeError):
    """A loss or gradient is not a finite number; the update was not made."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Noise levels in fp32: alpha_t and sigma_t for every training timestep, (num_train_timesteps,), and at T."""

    alpha: torch.Tensor
    sigma: torch.Tensor
    alpha_T: float
    sigma_T: float

    @classmethod
    def from_schedule(cls, alphas_cumprod: torch.Tensor, recipe: Recipe, device: torch.device) -> Levels:
        """Raises ValueError when T or t_max lies outside the teacher's schedule."""
        last = len(alphas_cumprod) - 1
        for name, t in (("student.timestep", recipe.student.timestep), ("loop.t_max", recipe.loop.t_max)):
            if t > last:
                raise ValueError(f"{name} is {t}, the teacher's schedule ends at {last}")
        power_T = recipe.student.alpha_T_squared or alphas_cumprod[recipe.student.timestep].item()
        return cls(
            alpha=alphas_cumprod.sqrt().to(device),
            sigma=(1 - alphas_cumprod).sqrt().to(device),
            alpha_T=power_T**0.5,
            sigma_T=(1 - power_T) ** 0.5,
        )

    def to(self, device: torch.device) -> Levels:
        return Levels(
            alpha=self.alpha.to(device), sigma=self.sigma.to(device), alpha_T=self.alpha_T, sigma_T=self.sigma_T
        )

    def at(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(alpha_t, sigma_t), each (B, 1, 1, 1), for timesteps t (B,)."""
        return self.alpha[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)


@dataclass(kw_only=True)
class Distillation:
    """Everything an iteration works on. `null` is the empty prompt's embedding, (1, S, E)."""

    recipe: Recipe
    accelerator: Accelerator
    student: nn.Module
    teachers: Teachers
    student_optimizer: torch.optim.Optimizer
    lora_optimizer: torch.optim.Optimizer
    levels: Levels
    prediction_type: str
    null: torch.Tensor
    clip: ClipJudge | None = None

    def run(self, prompts: list[str], text: torch.Tensor, draws: Draws, clip_weight: float = 0.0) -> dict[str, float]:
        """One student update and the LoRA updates; B prompts, text (B, S, E). Returns named figures for the log.

        Raises:
            NotFinite: a loss or a gradient is not finite.
        """
        x0 = self.student_x0(draws.z, text)
        loss, gap = self.student_loss(x0, text, draws)
        figures = {"kappa": draws.kappa, "vsd": loss.item(), "gap": gap.abs().mean().item(), "x0_std": x0.std().item()}
        if self.clip is not None and clip_weight > 0:
            clip_loss = self.clip.loss(x0, prompts)
            loss = loss + clip_weight * clip_loss
            figures["clip"] = clip_loss.item()
        figures["student_grad"] = self._update("student", loss, self.student_optimizer, list(self.student.parameters()))
        x0 = x0.detach()
        for lora_draws in draws.lora:
            loss = self.lora_teacher_loss(x0, text, lora_draws)
            figures["lora"] = loss.item()
            figures["lora_grad"] = self._update(
                "LoRA teacher", loss, self.lora_optimizer, self.teachers.lora_parameters()
            )
        return figures

    def student_x0(self, z: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """x0 = (z - sigma_T eps_theta(z, T, y)) / alpha_T, by the model's own parameterisation; fp32 (B, C, h, w)."""
        t = torch.full((len(z),), self.recipe.student.timestep, device=z.device)
        with self.accelerator.autocast():
            output = self.student(z, t, text).sample
        return x0_from_output(output, z, self.levels.alpha_T, self.levels.sigma_T, self.prediction_type)

    def student_loss(self, x0: torch.Tensor, text: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """L_VSD and the score gap g, with the same kappa for both teachers unless the recipe fixes one."""
        guidance = self.recipe.guidance
        kappa_teacher = draws.kappa if guidance.teacher_kappa is None else guidance.teacher_kappa
        kappa_lora = draws.kappa if guidance.lora_kappa is None else guidance.lora_kappa
        with torch.no_grad():
            alpha_t, sigma_t = self.levels.at(draws.t)
            x_t = add_noise(x0, draws.eps, alpha_t, sigma_t)
            with self.teachers.frozen() as teacher:
                eps_teacher = self._guided_eps(teacher, x_t, draws.t, text, kappa_teacher)
            eps_lora = self._guided_eps(self.teachers.unet, x_t, draws.t, text, kappa_lora)
            gap = score_gap(eps_teacher, eps_lora, sigma_t)
        return vsd_loss(x0, gap), gap

    def lora_teacher_loss(self, x0: torch.Tensor, text: torch.Tensor, draws: LoraDraws) -> torch.Tensor:
        """The LoRA teacher learns the score of what the student draws now; x0 carries no gradient."""
        alpha_t, sigma_t = self.levels.at(draws.t)
        x_t = add_noise(x0, draws.eps, alpha_t, sigma_t)
        text = torch.where(draws.drop.view(-1, 1, 1), self.null, text)
        with self.accelerator.autocast():
            output = self.teachers.unet(x_t, draws.t, text).sample
        if self.recipe.lora.loss == "native":
            return torch.mean((output.float() - self._native_target(x0, draws.eps, alpha_t, sigma_t)) ** 2)
        eps_lora = eps_from_output(output, x_t, alpha_t, sigma_t, self.prediction_type)
        return lora_loss(eps_lora, draws.eps, alpha_t)

    def _native_target(
        self, x0: torch.Tensor, eps: torch.Tensor, alpha_t: torch.Tensor, sigma_t: torch.Tensor
    ) -> torch.Tensor:
        return {"epsilon": eps, "v_prediction": alpha_t * eps - sigma_t * x0, "sample": x0}[self.prediction_type]

    def _guided_eps(
        self, unet: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, kappa: float
    ) -> torch.Tensor:
        """eps_hat (B, C, h, w), null and text rows in one forward of 2B rows."""
        both = torch.cat([self.null.expand_as(text), text])
        with self.accelerator.autocast():
            output = unet(torch.cat([x_t, x_t]), torch.cat([t, t]), both).sample
        alpha_t, sigma_t = self.levels.at(torch.cat([t, t]))
        eps = eps_from_output(output, torch.cat([x_t, x_t]), alpha_t, sigma_t, self.prediction_type)
        eps_null, eps_text = eps.chunk(2)
        return guide(eps_null, eps_text, kappa)

    def _update(
        self, who: str, loss: torch.Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
    ) -> float:
        optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(parameters, self.recipe.loop.gradient_clip).item()
        if not (torch.isfinite(loss).item() and norm < float("inf")):
            raise NotFinite(f"the {who}'s loss is {loss.item()} and its gradient norm {norm}; the update was not made")
        optimizer.step()
        return norm
