"""Builds a trainer from a recipe: teacher, student, optimisers, prompts, losses and monitoring."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from training.config import Recipe
from training.console import long_step
from training.distill.clip_loss import ClipLoss, load_tiny_vae
from training.distill.compile import check_compiled, compile_blocks
from training.distill.ema import EMA
from training.distill.networks import Teachers, make_student, trainable
from training.distill.noise_levels import NoiseLevels
from training.distill.optimizers import make_optimizer
from training.distill.step import Distillation
from training.models.backbone import Backbone, decode_latents, fingerprint
from training.models.loading import load_network, load_teacher
from training.prompts import open_prompts, recipe_prompts
from training.prompts.source import PromptSource
from training.trainer.distributed.accelerator import rows_at_once
from training.trainer.distributed.cuda_speed import needs_contiguous
from training.trainer.export import check_exportable
from training.trainer.monitor.callbacks import Evaluation
from training.trainer.trainer import Trainer

log = logging.getLogger(__name__)
OpenEvaluation = Callable[..., Evaluation]  # of recipe, accelerator, backbone and levels, by name


def open_teacher(recipe: Recipe) -> tuple[Backbone, NoiseLevels]:
    """Load the teacher and its noise levels, and check everything that can be checked before hours of training.

    Raises:
        FileNotFoundError: no teacher.
        ValueError: it does not fit the recipe, or no loader could open its student.
    """
    backbone = load_teacher(recipe.teacher, text_cache=recipe.prompts.text_cache)
    check_exportable(backbone)
    width = None if backbone.text_encoder is None else backbone.text_encoder.config.hidden_size
    backbone.family.check(backbone.network, width, recipe.loop.latent_size)
    return backbone, NoiseLevels.from_schedule(backbone.alphas_cumprod(), recipe)


def open_run_prompts(recipe: Recipe, backbone: Backbone) -> PromptSource:
    """Open the prompts of a run, after checking that `backbone` can encode all of them.

    Raises:
        FileNotFoundError, ValueError: see `open_prompts`; or there is no text encoder and the text cache lacks prompts.
    """
    prompts = open_prompts(
        recipe.prompts, recipe.seed, count_tokens=backbone.count_tokens, max_tokens=backbone.max_tokens
    )
    if backbone.text_encoder is None and backbone.text_cache is not None:
        with long_step("looking up all prompts in the text cache", at_once=False):
            backbone.text_cache.check_holds(recipe_prompts(recipe))
    return prompts


def build_trainer(recipe: Recipe, accelerator: Accelerator, open_evaluation: OpenEvaluation | None = None) -> Trainer:
    """Load the models of `recipe` onto the accelerator's device and prepare them for training.

    Raises:
        FileNotFoundError, ValueError: a model, the prompts or the text cache cannot be used; or evaluate.every is set
            and nothing was given that evaluates.
    """
    if recipe.evaluate.every and open_evaluation is None:
        raise ValueError("evaluate.every works in python -m training.pgsb only; leave it out here")
    sharded = accelerator.distributed_type == DistributedType.FSDP
    backbone, levels = open_teacher(recipe)
    levels = levels.to(accelerator.device)
    with long_step("hashing the teacher's weights", at_once=False):
        teacher_fingerprint = fingerprint(backbone.network)
    prompts = open_run_prompts(recipe, backbone)
    for line in prompts.describe():
        log.info("prompts: %s", line)

    with long_step("loading the student's first weights", at_once=False):
        init = load_network(recipe.student.init, backbone) if recipe.student.init else None
    log.info("making the student and its optimisers ...")
    # a full student is copied in fp32, before the teacher is cast to bf16
    student = make_student(backbone.network, recipe, weights=init) if recipe.student.train == "full" else None
    half = recipe.loop.precision == "bf16" and not sharded  # FSDP wants one dtype in a group of weights
    backbone.to(accelerator.device, torch.bfloat16 if half else None)
    student = student or make_student(backbone.network, recipe, weights=init, share=not sharded)
    teachers = Teachers(backbone.network, recipe)
    student, student_optimizer = _prepare(student, recipe.student.learning_rate, recipe, accelerator)
    lora_teacher, lora_optimizer = _prepare(backbone.network, recipe.lora.learning_rate, recipe, accelerator)
    decay = recipe.student.ema_decay
    negatives = list(recipe.student.nasa_negatives) if recipe.student.nasa_alpha_max else []
    distillation = Distillation(
        recipe=recipe,
        accelerator=accelerator,
        family=backbone.family,
        student=student,
        teachers=teachers,
        lora_teacher=lora_teacher,
        student_optimizer=student_optimizer,
        lora_optimizer=lora_optimizer,
        levels=levels,
        prediction_type=backbone.prediction_type,
        null=backbone.encode([""]),
        negatives=backbone.encode(negatives) if negatives else None,
        clip=_open_clip_loss(recipe, backbone, accelerator.device),
    )
    evaluation = None
    if recipe.evaluate.every and open_evaluation is not None:
        evaluation = open_evaluation(recipe=recipe, accelerator=accelerator, backbone=backbone, levels=levels)
    return Trainer(
        backbone=backbone,
        teacher_fingerprint=teacher_fingerprint,
        prompts=prompts,
        distillation=distillation,
        ema=EMA(trainable(student), decay) if decay else None,
        evaluation=evaluation,
    )


def check_compiled_gradients(trainer: Trainer) -> None:
    """Compile the networks, and compare their gradients with those of the uncompiled ones; takes minutes.

    Raises:
        RecipeError: the gradients are wrong.
        FailedHere: torch cannot compile the networks.
    """
    recipe, accelerator = trainer.recipe, trainer.accelerator
    log.info("compiling, and comparing gradients with those of the uncompiled networks; this takes minutes ...")
    rows = slice(0, rows_at_once(recipe, accelerator.num_processes))
    # a second stream, so that the run's own keeps its position
    prompts = open_run_prompts(recipe, trainer.backbone).take(rows.stop)
    draws = trainer.draw().rows(rows, accelerator.device)
    check_compiled(trainer.distillation, trainer.backbone.encode(prompts), draws)
    log.info("the gradients agree; the first iteration compiles the rest")


def _prepare(
    network: nn.Module, learning_rate: float, recipe: Recipe, accelerator: Accelerator
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network and its optimiser as accelerate prepares them."""
    # on a CPU channels last is slower (benchmarks/train_step.py)
    contiguous = accelerator.device.type != "cuda" or needs_contiguous(recipe, accelerator.distributed_type)
    if recipe.loop.channels_last and not contiguous:
        network.to(memory_format=torch.channels_last)
    if recipe.loop.compile:
        compile_blocks(network)
    return accelerator.prepare(network, make_optimizer(trainable(network), learning_rate, recipe))


def _open_clip_loss(recipe: Recipe, backbone: Backbone, device: torch.device) -> ClipLoss | None:
    if recipe.clip.weight == 0:
        return None
    with long_step("loading CLIP"):
        vae = backbone.vae
        if recipe.clip.decoder:
            vae = load_tiny_vae(recipe.clip.decoder).to(vae.device, vae.dtype)
        return ClipLoss(recipe.clip, partial(decode_latents, vae), device)
