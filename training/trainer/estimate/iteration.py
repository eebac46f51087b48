"""Runs one micro-batch of the trainer's iteration on the meta device, which counts memory and operations."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional

from training.config import Clip, Recipe, find_file
from training.distill.losses import clip_loss
from training.distill.networks import Teachers, trainable
from training.distill.noise_levels import NoiseLevels
from training.distill.rng import draw
from training.distill.step import Distillation
from training.models.backbone import Backbone, decode_latents
from training.models.text_embeddings import TextEmbeddings
from training.trainer.estimate.ledger import AsOnCuda, Ledger

META = torch.device("meta")


class MetaClipLoss:
    """`ClipLoss` on the meta device: the same decoder, resizing and encoders."""

    def __init__(self, section: Clip, backbone: Backbone) -> None:
        self.section = section
        # diffusers' own `to` warns about an empty list
        self.vae = nn.Module.to(_decoder(section), META, backbone.vae.dtype) if section.decoder else backbone.vae
        with torch.device(META):
            self.model = open_clip.create_model(section.model, load_weights=False, device=META).requires_grad_(False)

    def loss(self, x0: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        size = self.model.visual.image_size
        images = functional.interpolate(
            decode_latents(self.vae, x0), size, mode="bicubic", antialias=True, align_corners=False
        )
        with torch.no_grad():
            text = self.model.encode_text(
                torch.zeros(len(prompts), self.model.context_length, dtype=torch.long, device=META)
            )
        return clip_loss(self.model.encode_image(images), text, self.section.margin)


def _decoder(section: Clip) -> AutoencoderTiny:
    """The tiny decoder, or one of TAESD's size if its config is not on this machine."""
    found = find_file(section.decoder)
    config = AutoencoderTiny.load_config(found) if found.is_dir() else {}
    with torch.device(META):
        return AutoencoderTiny.from_config(config).requires_grad_(False)


class _FakeAccelerator:
    """The parts of accelerate's interface that an iteration uses, without a device."""

    process_index, num_processes = 0, 1

    def __init__(self, mode: AsOnCuda) -> None:
        self.autocast = mode.autocast

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def no_sync(self, network: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def unwrap_model(self, network: nn.Module) -> nn.Module:
        return network


class _WithoutOptimizers(Distillation):
    """Skips optimiser steps, which need values; they are fused and in place, and take no memory of their own."""

    def update(self, name: str, network: nn.Module, *rest: Any) -> float:
        for parameter in trainable(network):
            parameter.grad = None
        return 0.0


def count_micro_batch(
    recipe: Recipe,
    backbone: Backbone,
    levels: NoiseLevels,
    student: nn.Module,
    teachers: Teachers,
    clip: MetaClipLoss | None,
    rows: int,
    step: int,
) -> Ledger:
    """Run a micro-batch of `rows`, and count the memory it allocates (with the student's gradients) and its operations.

    Args:
        step: number of the student's step whose x0 is taken.
        backbone, student, teachers: on the meta device, in the dtypes of the run.
    """
    recipe = recipe.model_copy(update={"loop": recipe.loop.model_copy(update={"batch_size": rows})})
    steps, channels = backbone.schedule.num_train_timesteps, backbone.latent_channels
    draws = draw(recipe, 0, channels=channels, num_train_timesteps=steps, step=step).rows(slice(0, rows), META)
    ledger = Ledger()
    mode = AsOnCuda(ledger, half=recipe.loop.precision == "bf16")
    fake: Any = _FakeAccelerator(mode)
    for network in (student, teachers.network):
        if network.is_gradient_checkpointing:
            network.enable_gradient_checkpointing(mode.checkpoint)
    distillation = _WithoutOptimizers(
        recipe=recipe,
        accelerator=fake,
        family=backbone.family,
        student=student,
        teachers=teachers,
        lora_teacher=teachers.network,
        student_optimizer=fake,
        lora_optimizer=fake,
        levels=levels.to(META),
        prediction_type=backbone.prediction_type,
        null=meta_text(backbone, 1),
        negatives=meta_text(backbone, len(recipe.student.nasa_negatives)),
        clip=clip,
    )
    with mode, ledger:
        for parameter in trainable(student):  # gradients of earlier micro-batches
            parameter.grad = torch.empty_like(parameter)
        text, metrics = meta_text(backbone, rows), {}
        x0, *_ = distillation.student_update([""] * rows, text, draws, 1.0, metrics)
        for lora_draws in draws.lora:
            distillation.lora_update(x0, text, lora_draws, metrics)
    return ledger


def meta_text(backbone: Backbone, rows: int) -> TextEmbeddings:
    """Encoded prompts of full length on the meta device."""
    config, family = backbone.network.config, backbone.family
    masked = family.name == "pixart"
    width = config.caption_channels if masked else config.cross_attention_dim
    length, pooled = family.max_tokens(backbone.tokenizer), family.pooled_width(config)
    return TextEmbeddings(
        states=torch.empty(rows, length, width, device=META),
        mask=torch.ones(rows, length, dtype=torch.bool, device=META) if masked else None,
        pooled=None if pooled is None else torch.empty(rows, pooled, device=META),
    )
