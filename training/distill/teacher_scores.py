"""The two teachers' scores of the student's images, and the gap between them.

Dimensions: B batch rows, C latent channels, h x w latent size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from snoopi_core.one_step import eps_from_output
from training.config import Recipe
from training.distill.losses import add_noise, guide, score_gap, vsd_weight
from training.distill.networks import Teachers
from training.distill.noise_levels import NoiseLevels
from training.distill.rng import Draws, NoiseDraws
from training.models.families import Family
from training.models.text_embeddings import TextEmbeddings, concat


@dataclass(kw_only=True)
class TeacherScores:
    """Both teachers, called without gradients.

    null: the empty prompt, one row. negatives: NASA-T's negative prompts, one row each.
    """

    recipe: Recipe
    accelerator: Accelerator
    family: Family
    teachers: Teachers
    levels: NoiseLevels
    prediction_type: str
    null: TextEmbeddings
    negatives: TextEmbeddings | None = None

    @torch.no_grad()
    def student_gap(self, x0: torch.Tensor, text: TextEmbeddings, draws: Draws) -> torch.Tensor:
        """The score gap g (B, C, h, w); both teachers use the same kappa unless the recipe fixes one."""
        guidance = self.recipe.guidance
        kappa = draws.kappa.view(-1, 1, 1, 1)
        kappa_teacher = kappa if guidance.teacher_kappa is None else guidance.teacher_kappa
        kappa_lora = kappa if guidance.lora_kappa is None else guidance.lora_kappa
        alpha_t, sigma_t = self.levels.at(draws.t)
        x_t = add_noise(x0, draws.eps, alpha_t, sigma_t)
        if draws.guidance is not None:
            return self._decoupled_gap(x0, x_t, text, draws, draws.guidance, kappa_teacher, kappa_lora)
        with self.teachers.frozen() as teacher:
            eps_teacher = self._guided_eps(teacher, x_t, draws.t, self._negative(draws), text, kappa_teacher)
        eps_lora = self._guided_eps(self.teachers.network, x_t, draws.t, self.null, text, kappa_lora)
        weight = vsd_weight(self.recipe.loop.vsd_weight, x0, x_t, eps_teacher, alpha_t, sigma_t)
        return score_gap(eps_teacher, eps_lora, weight)

    def _decoupled_gap(
        self,
        x0: torch.Tensor,
        x_t: torch.Tensor,
        text: TextEmbeddings,
        draws: Draws,
        own: NoiseDraws,
        kappa_teacher: torch.Tensor | float,
        kappa_lora: torch.Tensor | float,
    ) -> torch.Tensor:
        """The score gap of Decoupled DMD (arXiv 2511.22677), for two guided teachers.

        g = w_t (eps_pi(x_t, y) - eps_psi(x_t, y)) + w_s ((kappa_pi - 1) d_pi(x_s) - (kappa_psi - 1) d_psi(x_s)),
        d(x) = eps(x, y) - eps(x, null): what guidance adds is taken at a timestep s and noise of its own.
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.levels.at(draws.t), self.levels.at(own.t)
        x_s, kind = add_noise(x0, own.eps, alpha_s, sigma_s), self.recipe.loop.vsd_weight
        with self.teachers.frozen() as teacher:
            eps_teacher = self._eps(teacher, x_t, draws.t, text)
            null, cond = self._null_and_text_eps(teacher, x_s, own.t, self._negative(draws), text)
        eps_lora = self._eps(self.teachers.network, x_t, draws.t, text)
        adds = (kappa_teacher - 1) * (cond - null)
        adds_lora = torch.zeros_like(adds)
        if self.recipe.guidance.lora_kappa != 1:  # as in the paper, where this teacher is not guided: no passes more
            null_lora, cond_lora = self._null_and_text_eps(self.teachers.network, x_s, own.t, self.null, text)
            adds_lora = (kappa_lora - 1) * (cond_lora - null_lora)
        weight_t = vsd_weight(kind, x0, x_t, eps_teacher, alpha_t, sigma_t)
        weight_s = vsd_weight(kind, x0, x_s, guide(null, cond, kappa_teacher), alpha_s, sigma_s)
        return score_gap(eps_teacher, eps_lora, weight_t) + score_gap(adds, adds_lora, weight_s)

    def _guided_eps(
        self,
        network: nn.Module,
        x_t: torch.Tensor,
        t: torch.Tensor,
        null: TextEmbeddings,
        text: TextEmbeddings,
        kappa: torch.Tensor | float,
    ) -> torch.Tensor:
        """eps_hat (B, C, h, w)."""
        return guide(*self._null_and_text_eps(network, x_t, t, null, text), kappa)

    def _null_and_text_eps(
        self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, null: TextEmbeddings, text: TextEmbeddings
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """eps without and with text, (B, C, h, w) each, in one forward pass of 2B rows."""
        both = concat([null.expand(len(text)), text])
        eps_null, eps_text = self._eps(network, torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        return eps_null, eps_text

    def _eps(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        with self.accelerator.autocast():
            output = self.family.call(network, x_t, t, text)
        return eps_from_output(output, x_t, *self.levels.at(t), self.prediction_type)

    def _kappa_used(self, draws: Draws) -> torch.Tensor:
        """The scale to log: the drawn one, or the frozen teacher's if both teachers have a fixed one."""
        guidance = self.recipe.guidance
        if guidance.teacher_kappa is None or guidance.lora_kappa is None:
            return draws.kappa.mean()
        return torch.full_like(draws.kappa[0], guidance.teacher_kappa)

    def _negative(self, draws: Draws) -> TextEmbeddings:
        """The negative of the frozen teacher's guidance: the null prompt, or NASA-T's negative prompt."""
        if draws.nasa is None or self.negatives is None:
            return self.null
        return self.negatives[draws.nasa[1] : draws.nasa[1] + 1]
