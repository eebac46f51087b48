"""One iteration of PG-SB (SNOOPI, arXiv 2412.02687, Section 3): a student update, then the LoRA teacher's.

Dimensions: B batch rows, C latent channels, h x w latent size.

The batch of an iteration is split over processes, and in each process into micro-batches whose gradients add up. First
come the student's micro-batches and the student's optimiser step, then the LoRA teacher's micro-batches, on the images
x0 that the student generated before its step (lora.batches says of which updates), and the LoRA teacher's step. Every
loss is a mean over the whole batch, so the split changes only rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from snoopi_core.one_step import eps_from_output, sample_steps, x0_from_output
from training.distill.clip_loss import ClipLoss, clip_rows
from training.distill.losses import add_noise, lora_loss, vsd_loss
from training.distill.networks import trainable
from training.distill.rng import Draws, ImageDraws, LoraDraws
from training.distill.teacher_scores import TeacherScores
from training.models.guidance.nasa import nasa
from training.models.text_embeddings import TextEmbeddings


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of an iteration.

    metrics: means over the whole batch, by name. x0: this process's images (B, C, h, w) fp32. gap: their mean |g| (B,).
    skipped: "student" or "LoRA teacher" if its update was skipped because the loss or gradient was not finite, else
    empty. If the student's update is skipped, the LoRA teacher's is not tried.
    """

    metrics: dict[str, float]
    x0: torch.Tensor
    gap: torch.Tensor
    skipped: str = ""


@dataclass(kw_only=True)
class Distillation(TeacherScores):
    """The networks, optimisers and settings of an iteration.

    student, lora_teacher: as prepared by accelerate, for forward passes with gradients; passes without gradients call
    the bare networks.
    """

    student: nn.Module
    lora_teacher: nn.Module
    student_optimizer: torch.optim.Optimizer
    lora_optimizer: torch.optim.Optimizer
    clip: ClipLoss | None = None

    def run(
        self,
        prompts: list[str],
        text: TextEmbeddings,
        draws: Draws,
        clip_weight: float = 0.0,
        fresh: Sequence[TextEmbeddings] = (),
    ) -> Outcome:
        """Do one iteration: a student update and the LoRA teacher's updates.

        Args:
            prompts, text, draws: this process's rows of the batch, on its device.
            fresh: text of each batch that is the LoRA teacher's alone (`rng.fresh_batches`).
        """
        metrics: dict[str, torch.Tensor] = {}
        x0, gap, norm = self.student_update(prompts, text, draws, clip_weight, metrics)
        skipped = "" if norm is not None else "student"
        texts = iter(fresh)
        for lora_draws in draws.lora if norm is not None else ():
            own = text if lora_draws.images is None else next(texts)
            with self._nasa_if_drawn(draws):  # it acts on the student alone
                good = self.lora_update(x0, own, lora_draws, metrics) is not None
            if not good:
                skipped = "LoRA teacher"
                break
        metrics["kappa"] = self._kappa_used(draws)
        return Outcome(metrics=self._mean_over_processes(metrics), x0=x0, gap=gap, skipped=skipped)

    def student_update(
        self,
        prompts: list[str],
        text: TextEmbeddings,
        draws: Draws,
        clip_weight: float,
        metrics: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, float | None]:
        """Update the student once; adds to `metrics`.

        Returns:
            The images x0 before the update (B, C, h, w), their mean |g| (B,), and the gradient's norm, or None if the
            update was skipped.
        """
        drawn, gaps, total = [], [], draws.z.new_zeros(())
        for rows, context in self._micro_batches(len(prompts), self.student):
            part, share = draws.rows(rows, draws.z.device), (rows.stop - rows.start) / len(prompts)
            # the context covers the backward pass, which repeats the forward pass with gradient checkpointing
            with context, self._nasa_if_drawn(part):
                x0 = self.student_images(text[rows], part)
                vsd, gap = self.student_loss(x0, text[rows], part)
                loss = share * vsd
                _add(metrics, "vsd", loss)
                _add(metrics, "gap", share * gap.abs().mean())
                if self.clip is not None and clip_weight > 0:
                    clip = self._clip_loss(x0, prompts, rows)
                    loss = loss + clip_weight * clip
                    _add(metrics, "clip", clip)
                self.accelerator.backward(loss)
            drawn.append(x0.detach())
            gaps.append(gap.abs().mean((1, 2, 3)))
            total += loss.detach()
        norm = self.update("student", self.student, self.student_optimizer, total, metrics)
        return torch.cat(drawn), torch.cat(gaps), norm

    def lora_update(
        self, x0: torch.Tensor, text: TextEmbeddings, draws: LoraDraws, metrics: dict[str, torch.Tensor]
    ) -> float | None:
        """Update the LoRA teacher once; adds to `metrics`. Returns the gradient's norm, None if it was skipped."""
        total = x0.new_zeros(())
        for rows, context in self._micro_batches(len(x0), self.lora_teacher):
            part, share = draws.rows(rows, x0.device), (rows.stop - rows.start) / len(x0)
            with context:
                with torch.no_grad():
                    images = x0[rows] if part.images is None else self.student_images(text[rows], part.images)
                loss = share * self.lora_teacher_loss(images, text[rows], part)
                self.accelerator.backward(loss)
            total += loss.detach()
        metrics["lora"] = total
        return self.update("lora", self.lora_teacher, self.lora_optimizer, total, metrics)

    def student_images(self, text: TextEmbeddings, draws: ImageDraws) -> torch.Tensor:
        """x0 at the drawn step, fp32 (B, C, h, w): the earlier steps run as One-Step Sampler does (backward simulation,
        DMD2, arXiv 2405.14867, Section 4.5), without gradient unless the recipe says so."""
        student = self.recipe.student
        bare = self.accelerator.unwrap_model(self.student)  # DDP takes one forward pass for each backward pass

        def predict(number: int, x: torch.Tensor) -> torch.Tensor:
            if number == draws.step and torch.is_grad_enabled():
                return self.student_x0(x, text, number)
            with torch.set_grad_enabled(torch.is_grad_enabled() and student.step_gradient == "all"):
                return self.student_x0(x, text, number, bare)

        steps = self.levels.steps[: draws.step + 1]
        return sample_steps(predict, draws.z, steps, lambda number: draws.noise[number - 1], kind=student.transition)

    def student_x0(
        self, x: torch.Tensor, text: TextEmbeddings, number: int = 0, network: nn.Module | None = None
    ) -> torch.Tensor:
        """x0 = (x - sigma_t eps_theta(x, t, y)) / alpha_t at step `number`, converted from the model's
        parameterisation; fp32 (B, C, h, w). `network`: None for the prepared student."""
        step = self.levels.steps[number]
        t = torch.full((len(x),), step.timestep, device=x.device)
        with self.accelerator.autocast():
            output = self.family.call(network or self.student, x, t, text)
        return x0_from_output(output, x, step.alpha, step.sigma, self.prediction_type)

    def student_loss(self, x0: torch.Tensor, text: TextEmbeddings, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """L_VSD (scalar) and the score gap (B, C, h, w)."""
        gap = self.student_gap(x0, text, draws)
        return vsd_loss(x0, gap), gap

    def _clip_loss(self, x0: torch.Tensor, prompts: list[str], rows: slice) -> torch.Tensor:
        """This micro-batch's part of L_CLIP. Its sum over micro-batches, averaged over processes, is the loss."""
        all_rows = clip_rows(self.recipe.clip.share, self.recipe.loop.batch_size)
        first = self.accelerator.process_index * len(prompts)
        chosen = [row for row in range(rows.start, rows.stop) if first + row in all_rows]
        if not chosen:
            return x0.new_zeros(())
        with self.accelerator.autocast():
            loss = self.clip.loss(x0[[row - rows.start for row in chosen]], [prompts[row] for row in chosen])
        return loss * len(chosen) * self.accelerator.num_processes / len(all_rows)

    def lora_teacher_loss(self, x0: torch.Tensor, text: TextEmbeddings, draws: LoraDraws) -> torch.Tensor:
        """Loss of the LoRA teacher, which learns the score of the student's images; x0 carries no gradient. Scalar."""
        alpha_t, sigma_t = self.levels.at(draws.t)
        x_t = add_noise(x0, draws.eps, alpha_t, sigma_t)
        with self.accelerator.autocast():
            output = self.family.call(self.lora_teacher, x_t, draws.t, text.where(draws.drop, self.null))
        if self.recipe.lora.loss == "native":
            v = alpha_t * draws.eps - sigma_t * x0
            target = {"epsilon": draws.eps, "v_prediction": v, "sample": x0}[self.prediction_type]
            return torch.mean((output.float() - target) ** 2)
        eps_lora = eps_from_output(output, x_t, alpha_t, sigma_t, self.prediction_type)
        return lora_loss(eps_lora, draws.eps, alpha_t)

    def _nasa_if_drawn(self, draws: Draws) -> AbstractContextManager[object]:
        """NASA inside the student, for NASA-T only."""
        if draws.nasa is None:
            return nullcontext()
        return nasa(self.accelerator.unwrap_model(self.student), self._negative(draws), draws.nasa[0])

    def _micro_batches(self, rows: int, network: nn.Module) -> Iterator[tuple[slice, AbstractContextManager[object]]]:
        """Rows of each micro-batch, and a context in which only the last one exchanges gradients between processes."""
        size = self.recipe.loop.micro_batch or rows
        for start in range(0, rows, size):
            last = start + size >= rows
            yield slice(start, min(start + size, rows)), nullcontext() if last else self.accelerator.no_sync(network)

    def update(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: torch.Tensor,
        metrics: dict[str, torch.Tensor],
    ) -> float | None:
        """Clip the gradient and step the optimiser, unless the gradient or the loss is not finite in some process.

        Gradients are freed at once: the student's are as large as its weights, and the LoRA teacher's update needs the
        memory.

        Returns:
            The gradient's norm before clipping; None if the update was skipped.
        """
        weights, limit = trainable(network), self.recipe.loop.gradient_clip
        total = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        norm = total.full_tensor() if hasattr(total, "full_tensor") else total
        metrics[f"{name}_grad"] = norm
        good = (torch.isfinite(loss) & torch.isfinite(norm)).float()
        finite = self.accelerator.reduce(good, "sum").item() == self.accelerator.num_processes
        if finite:
            if norm.item() > limit:  # otherwise clipping would rewrite all gradients to multiply them by 1
                clip_grads_with_norm_(weights, limit, total)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm.item() if finite else None

    def _mean_over_processes(self, metrics: dict[str, torch.Tensor]) -> dict[str, float]:
        """Means over processes, moved to the CPU in one transfer."""
        values = torch.stack([value.detach().float() for value in metrics.values()])
        return dict(zip(metrics, self.accelerator.reduce(values, "mean").tolist(), strict=True))


def _add(metrics: dict[str, torch.Tensor], name: str, value: torch.Tensor) -> None:
    metrics[name] = metrics.get(name, 0.0) + value.detach()
