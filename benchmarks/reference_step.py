"""A plain PG-SB step, written from the paper, as a reference for ours; it does what public training loops do.

It has a frozen teacher and a LoRA teacher with separate weights and four teacher forwards, encodes every prompt and the
empty one in each step, and uses AdamW, EMA and memory layout with the libraries' defaults. It has the optimisations of
a good plain loop: no graph for the teachers, frozen networks in bf16 if the student trains in bf16, PyTorch's SDPA, and
gradient checkpointing if the recipe asks for it.

Dimensions: B batch rows, C latent channels, h x w latent size.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from clock import Clock
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel, cast_training_params
from peft import LoraConfig
from transformers import CLIPTextModel, CLIPTokenizer

from training.config import Recipe
from training.distill.rng import Draws


class ReferenceStep:
    """The networks of a diffusers folder, and one iteration on them: epsilon-prediction, VSD loss, LoRA loss."""

    def __init__(self, recipe: Recipe, clock: Clock, *, cpu: bool) -> None:
        folder, loop = recipe.teacher.path, recipe.loop
        self.recipe, self.clock = recipe, clock
        self.accelerator = Accelerator(mixed_precision=loop.precision, cpu=cpu)
        device = self.accelerator.device
        frozen_dtype = torch.bfloat16 if loop.precision == "bf16" else torch.float32

        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        self.text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32)
        self.text_encoder.requires_grad_(False).to(device)
        self.teacher = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=frozen_dtype)
        self.teacher.requires_grad_(False).to(device)
        self.lora_teacher = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=frozen_dtype)
        self.lora_teacher.requires_grad_(False).to(device)
        torch.manual_seed(recipe.seed)
        self.lora_teacher.add_adapter(
            LoraConfig(
                r=recipe.lora.rank,
                lora_alpha=recipe.lora.scaling,
                init_lora_weights="gaussian",
                target_modules=["to_q", "to_v"],
            )
        )
        cast_training_params(self.lora_teacher, torch.float32)
        student = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
        if loop.gradient_checkpointing:
            student.enable_gradient_checkpointing()
            self.lora_teacher.enable_gradient_checkpointing()
        settings = {"betas": (0.9, 0.999), "weight_decay": loop.weight_decay}
        student = student.to(device).train()
        optimizer = torch.optim.AdamW(student.parameters(), lr=recipe.student.learning_rate, **settings)
        lora_optimizer = torch.optim.AdamW(self.lora_parameters(), lr=recipe.lora.learning_rate, **settings)
        self.student, self.lora_teacher, self.optimizer, self.lora_optimizer = self.accelerator.prepare(
            student, self.lora_teacher, optimizer, lora_optimizer
        )
        self.optimizers = (self.optimizer, self.lora_optimizer)
        self.ema = EMAModel(self.student.parameters(), decay=recipe.student.ema_decay)
        self.alphas_cumprod = self.scheduler.alphas_cumprod.float().to(device)

    def lora_parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.lora_teacher.parameters() if parameter.requires_grad]

    def encode(self, prompts: list[str]) -> torch.Tensor:
        """Text embeddings, (B, 77, E)."""
        tokens = self.tokenizer(
            prompts,
            max_length=self.tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            return self.text_encoder(tokens.input_ids.to(self.accelerator.device)).last_hidden_state

    def step(self, prompts: list[str], draws: Draws) -> dict[str, torch.Tensor]:
        """One student update and one LoRA update. Returns x0 (B, C, h, w), both losses and both gradient norms."""
        rows, last = len(prompts), torch.full_like(draws.t, self.recipe.student.timestep)
        alpha_bar_T = self.alphas_cumprod[self.recipe.student.timestep]
        with self.clock("text"):
            text, null = self.encode(prompts), self.encode([""] * rows)

        with self.clock("student forward"):
            eps = self.student(draws.z, last, text).sample.float()
            x0 = (draws.z - (1 - alpha_bar_T).sqrt() * eps) / alpha_bar_T.sqrt()
        with self.clock("teachers"), torch.no_grad():
            x_t = self.scheduler.add_noise(x0, draws.eps, draws.t)
            with self.accelerator.autocast():
                teacher_null = self.teacher(x_t, draws.t, null).sample.float()
                teacher_text = self.teacher(x_t, draws.t, text).sample.float()
                lora_null = self.lora_teacher(x_t, draws.t, null).sample.float()
                lora_text = self.lora_teacher(x_t, draws.t, text).sample.float()
            kappa = draws.kappa.view(-1, 1, 1, 1)
            teacher_eps = teacher_null + kappa * (teacher_text - teacher_null)
            lora_eps = lora_null + kappa * (lora_text - lora_null)
            weight = 1 - self.alphas_cumprod[draws.t].view(-1, 1, 1, 1)
            target = x0 - weight * (teacher_eps - lora_eps)
        with self.clock("student backward"):
            loss = 0.5 * torch.nn.functional.mse_loss(x0, target)
            self.accelerator.backward(loss)
        with self.clock("student optimiser + EMA"):
            norm = self.accelerator.clip_grad_norm_(self.student.parameters(), self.recipe.loop.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.ema.step(self.student.parameters())

        lora_draws, x0 = draws.lora[0], x0.detach()
        with self.clock("LoRA forward + backward"):
            x_t = self.scheduler.add_noise(x0, lora_draws.eps, lora_draws.t)
            condition = torch.where(lora_draws.drop.view(-1, 1, 1), null, text)
            eps = self.lora_teacher(x_t, lora_draws.t, condition).sample.float()
            alpha_t = self.alphas_cumprod[lora_draws.t].sqrt().view(-1, 1, 1, 1)
            lora_loss = torch.mean((alpha_t * (eps - lora_draws.eps)) ** 2)
            self.accelerator.backward(lora_loss)
        with self.clock("LoRA optimiser"):
            lora_norm = self.accelerator.clip_grad_norm_(self.lora_parameters(), self.recipe.loop.gradient_clip)
            self.lora_optimizer.step()
            self.lora_optimizer.zero_grad()
        return {
            "x0": x0,
            "vsd": loss.detach(),
            "lora": lora_loss.detach(),
            "student_grad": norm,
            "lora_grad": lora_norm,
        }
