"""Opens a teacher from its configs alone and gives it random weights on the device; no weight is read or written."""

from __future__ import annotations

from dataclasses import fields
from unittest import mock

import torch
from torch import nn

from training.config import Recipe
from training.distill.noise_levels import NoiseLevels
from training.models.backbone import Backbone
from training.models.loading.build import without_weights
from training.models.text_embeddings import TextEmbeddings
from training.trainer import build
from training.trainer.distributed.accelerator import start_accelerator
from training.trainer.distributed.cuda_speed import use_cuda_settings
from training.trainer.estimate.iteration import meta_text
from training.trainer.trainer import Trainer

_open_teacher = build.open_teacher


class WithoutText(Backbone):
    """Random text embeddings of full length in place of a text encoder's, as from a text cache."""

    def encode(self, prompts: list[str]) -> TextEmbeddings:
        empty, device = meta_text(self, len(prompts)), self.network.device
        rng = torch.Generator().manual_seed(len(prompts))
        return TextEmbeddings(
            states=torch.randn(empty.states.shape, generator=rng).to(device),
            mask=None if empty.mask is None else torch.ones(empty.mask.shape, dtype=torch.bool, device=device),
            pooled=None if empty.pooled is None else torch.randn(empty.pooled.shape, generator=rng).to(device),
        )


def describe_teacher(recipe: Recipe) -> tuple[Backbone, NoiseLevels]:
    """The teacher on the meta device, without its text encoder: what `estimate` needs."""
    with without_weights(t5_is_needed=False):
        backbone, levels = _open_teacher(recipe)
    parts = {field.name: getattr(backbone, field.name) for field in fields(backbone)}
    return WithoutText(**parts | {"text_encoder": None}), levels


def build_random(recipe: Recipe, *, cpu: bool) -> Trainer:
    """The trainer of `recipe` as a run builds it, with random weights made on the device."""
    accelerator = start_accelerator(recipe, cpu=cpu)
    use_cuda_settings(recipe, accelerator.device, accelerator.distributed_type)

    def open_random(recipe: Recipe) -> tuple[Backbone, NoiseLevels]:
        backbone, levels = describe_teacher(recipe)
        # a student that is trained in full is copied in fp32, whatever the teacher's own precision
        half = recipe.loop.precision == "bf16" and recipe.student.train == "lora"
        for module in (backbone.network, backbone.vae):
            _fill(module, accelerator.device, torch.bfloat16 if half else torch.float32)
        return backbone, levels

    with mock.patch.object(build, "open_teacher", open_random), mock.patch.object(build, "fingerprint", lambda _: ""):
        trainer = build.build_trainer(recipe, accelerator)
    _randomise(trainer.distillation.lora_teacher)
    return trainer


@torch.no_grad()
def _fill(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Weights that keep the magnitude of activations; buffers (embeddings of positions) are zero."""
    nn.Module.to(module, dtype).to_empty(device=device)
    rng = torch.Generator(device).manual_seed(0)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.uniform_(-1.0, 1.0, generator=rng).mul_((3.0 / weight[0].numel()) ** 0.5)
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    for buffer in module.buffers():
        buffer.zero_()


@torch.no_grad()
def _randomise(lora_teacher: nn.Module) -> None:
    """With the initial zeros both teachers agree, and the student has no gradient."""
    rng = torch.Generator().manual_seed(0)
    for weight in build.trainable(lora_teacher):
        weight.copy_(0.05 * torch.randn(weight.shape, generator=rng))
