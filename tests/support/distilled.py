"""One iteration of the trainer on tiny models of the three classes: shared code of its tests."""

from __future__ import annotations

import dataclasses

import torch
from accelerate import Accelerator
from tiny import tiny_backbone, tiny_pixart_backbone, tiny_sd21_backbone, tiny_sdxl_backbone

from training.config import Recipe
from training.distill.networks import Teachers, make_student, trainable
from training.distill.noise_levels import NoiseLevels
from training.distill.optimizers import make_optimizer
from training.distill.rng import draw
from training.distill.step import Distillation

PROMPTS = ["a red ring", "a square on the left", "blue"]
MODELS = {
    "SD1.5": tiny_backbone,
    "SD1.5, v": lambda: tiny_backbone("v_prediction"),
    "SD2.1": tiny_sd21_backbone,
    "SDXL": tiny_sdxl_backbone,
    "PixArt": tiny_pixart_backbone,
}


def make_recipe(**changes):
    tree = {
        "teacher": {"path": "tiny"},
        "prompts": {"source": "shapes"},
        "student": {"learning_rate": 1e-4},
        "lora": {"rank": 4, "scaling": 8},
        "loop": {"batch_size": len(PROMPTS), "latent_size": 8, "precision": "no"},
    }
    for section, values in changes.items():
        tree.setdefault(section, {}).update(values)
    return Recipe.model_validate(tree)


def make_distillation(backbone, recipe, dtype=torch.float32):
    student = make_student(backbone.network, recipe).to(dtype)
    teachers = Teachers(backbone.network, recipe)
    backbone.network.to(dtype)
    return Distillation(
        recipe=recipe,
        accelerator=Accelerator(cpu=True),
        student=student,
        family=backbone.family,
        teachers=teachers,
        lora_teacher=teachers.network,
        student_optimizer=make_optimizer(trainable(student), recipe.student.learning_rate, recipe),
        lora_optimizer=make_optimizer(teachers.lora_parameters(), recipe.lora.learning_rate, recipe),
        levels=NoiseLevels.from_schedule(backbone.alphas_cumprod(), recipe),
        prediction_type=backbone.prediction_type,
        null=backbone.encode([""]).to(torch.device("cpu"), dtype),
    )


def draws_for(recipe, iteration=0, dtype=torch.float32, **options):
    drawn = draw(recipe, iteration, channels=4, num_train_timesteps=1000, **options)
    lora = tuple(
        dataclasses.replace(item, eps=item.eps.to(dtype), images=item.images and _images(item.images, dtype))
        for item in drawn.lora
    )
    guidance = drawn.guidance and dataclasses.replace(drawn.guidance, eps=drawn.guidance.eps.to(dtype))
    return dataclasses.replace(_images(drawn, dtype), eps=drawn.eps.to(dtype), lora=lora, guidance=guidance)


def _images(draws, dtype):
    return dataclasses.replace(draws, z=draws.z.to(dtype), noise=tuple(one.to(dtype) for one in draws.noise))


def randomise_lora(teachers, seed=3):
    """Adapters start at B = 0; set random values, so that both teachers differ from the first iteration on."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in teachers.lora_parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng, dtype=torch.float64).to(parameter.dtype) * 0.1


def relative(got, want):
    return ((got - want).norm() / want.norm()).item()
