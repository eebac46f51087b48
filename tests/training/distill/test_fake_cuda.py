"""An iteration of the full-size networks on a fake CUDA device: no device or dtype is mixed. Needs no GPU.

Not faked: the optimisers' updates, which read values, gradient checkpointing and the CLIP loss.
"""

import copy
import dataclasses

import pytest
import torch
from fake_cuda import CUDA, autocast, backward
from full_size_folders import write_description
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from training.config import load_recipe
from training.distill.networks import Teachers, make_student, trainable
from training.distill.rng import draw
from training.distill.step import Distillation
from training.models.loading.build import without_weights
from training.trainer.build import open_teacher
from training.trainer.estimate.iteration import _FakeAccelerator, meta_text

ROWS = 2


class Accelerator(_FakeAccelerator):
    def __init__(self):
        self.autocast = autocast

    def backward(self, loss):
        assert (loss.device, loss.dtype) == (CUDA, torch.float32)
        backward(loss)


class WithoutUpdates(Distillation):
    """Checks gradients in place of the optimisers' updates."""

    def update(self, name, network, *rest):
        weights = trainable(network)
        assert weights and all(weight.grad is not None for weight in weights), f"{name}: no gradient"
        assert {(weight.grad.device, weight.grad.dtype) for weight in weights} == {(CUDA, torch.float32)}
        for weight in trainable(self.student) + trainable(self.lora_teacher):
            weight.grad = None
        return 0.0


def on_cuda(text):
    """Empty embeddings of the same shapes."""
    parts = {field.name: getattr(text, field.name) for field in dataclasses.fields(text)}
    made = {name: torch.zeros(t.shape, dtype=t.dtype, device=CUDA) for name, t in parts.items() if t is not None}
    return dataclasses.replace(text, **made)


def test_the_walk_gives_the_engines_gradients():
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 4, 3))
    twin, x = copy.deepcopy(network), torch.randn(2, 4, 8, 8)
    (network(x) * network(x[:1])).mean().backward()
    backward((twin(x) * twin(x[:1])).mean())
    for got, want in zip(twin.parameters(), network.parameters(), strict=True):
        assert torch.equal(got.grad, want.grad)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("name", ["sd15", "sdxl_lora_4step", "pixart"])
def test_an_iteration_of_full_size_networks_mixes_no_device_and_no_dtype(tmp_path, name):
    kind = name.partition("_")[0]
    settings = ["clip.weight=0", "loop.gradient_checkpointing=false", "prompts.text_cache="]
    settings += [f"loop.batch_size={ROWS}", "loop.micro_batch=0"]
    folder = write_description(tmp_path / kind, kind)
    recipe = load_recipe(name, [f"teacher.path={folder}", "prompts.source=shapes", *settings])
    with without_weights():
        backbone, levels = open_teacher(recipe)
    student = make_student(backbone.network, recipe) if recipe.student.train == "full" else None
    backbone.network.to(torch.bfloat16)
    student = student or make_student(backbone.network, recipe)
    teachers = Teachers(backbone.network, recipe)
    drawn = draw(recipe, 0, channels=4, num_train_timesteps=1000, step=min(1, len(recipe.student.steps) - 1))
    accelerator = Accelerator()
    with FakeTensorMode(allow_non_fake_inputs=True):
        d = WithoutUpdates(
            recipe=recipe,
            accelerator=accelerator,
            family=backbone.family,
            student=student.to_empty(device=CUDA),
            teachers=teachers,
            lora_teacher=teachers.network.to_empty(device=CUDA),
            student_optimizer=accelerator,
            lora_optimizer=accelerator,
            levels=levels.to(CUDA),
            prediction_type=backbone.prediction_type,
            null=on_cuda(meta_text(backbone, 1)),
        )
        text, draws, metrics = on_cuda(meta_text(backbone, ROWS)), drawn.rows(slice(0, ROWS), CUDA), {}
        x0, gap, _ = d.student_update([""] * ROWS, text, draws, 0.0, metrics)
        assert {(t.device, t.dtype) for t in (x0, gap)} == {(CUDA, torch.float32)}
        d.lora_update(x0, text, draws.lora[0], metrics)
        assert {value.device for value in metrics.values()} == {CUDA}
        d.levels = levels  # a mistake that must be found: these stay on the CPU
        with pytest.raises(RuntimeError, match="device"):
            d.student_gap(x0, text, draws)
