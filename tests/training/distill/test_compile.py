"""Compiled networks: all blocks are compiled, training gives the same results, and wrong gradients are refused.

Dynamo and AOT autograd are real, but kernels run eagerly, since inductor's take minutes to build.
"""

import json
import math
from functools import partialmethod

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.models.resnet import ResnetBlock2D
from distilled import MODELS, PROMPTS, draws_for, make_distillation, make_recipe
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from training.config import RecipeError
from training.config.errors import FailedHere
from training.distill.compile import check_compiled, compile_blocks
from training.pgsb import main

MEASURED = ("vsd", "gap", "lora", "student_grad", "lora_grad", "kappa")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    AcceleratorState._reset_state()


def compile_by(monkeypatch, backend):
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))


def with_wrong_gradient(change):
    """A compiler with correct forward passes and one wrong gradient in each backward pass."""

    def backward(graph, inputs):
        def run(*values):
            gradients = list(graph(*values))
            number = next(n for n, gradient in enumerate(gradients) if gradient is not None)
            gradients[number] = change(gradients[number])
            return gradients

        return run

    return aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=backward)


# the largest error that was seen with inductor
FIVE_PERCENT_OFF = with_wrong_gradient(lambda gradient: 1.05 * gradient)
# rounds in other places, like compiled kernels
RIGHT = "aot_eager_decomp_partition"


def distillation(model, precision="no"):
    recipe = make_recipe(loop={"precision": precision})
    backbone = MODELS[model]()
    d = make_distillation(backbone, recipe)
    AcceleratorState._reset_state()  # accelerate allows only one precision per process unless its state is reset
    d.accelerator = Accelerator(cpu=True, mixed_precision=precision)
    return d, backbone.encode(PROMPTS), draws_for(recipe)


def test_blocks_of_many_shapes_are_all_compiled(monkeypatch):
    """As many as in a UNet of Stable Diffusion; by default, torch stops compiling after the eighth."""
    compile_by(monkeypatch, "eager")
    blocks = nn.ModuleList(
        ResnetBlock2D(in_channels=width, out_channels=4, groups=1, groups_out=1, temb_channels=2)
        for width in range(1, 13)
    )
    compile_blocks(blocks)
    for width, block in enumerate(blocks, 1):
        block(torch.zeros(2, width, 2, 2), torch.zeros(2, 2))
    assert counters["stats"]["unique_graphs"] >= len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision"),
    [
        pytest.param("SD1.5", "bf16", marks=pytest.mark.full),
        ("PixArt", "bf16"),
        pytest.param("PixArt", "no", marks=pytest.mark.full),
    ],
)
def test_right_gradients_pass_and_wrong_ones_do_not(monkeypatch, model, precision):
    d, text, draws = distillation(model, precision)
    before = [weight.clone() for network in (d.student, d.lora_teacher) for weight in network.parameters()]
    compile_by(monkeypatch, RIGHT)
    for network in (d.student, d.lora_teacher):
        compile_blocks(network)
    check_compiled(d, text, draws)
    assert counters["stats"]["unique_graphs"] > 1, "nothing was compiled"
    after = [weight for network in (d.student, d.lora_teacher) for weight in network.parameters()]
    assert all(weight.grad is None for weight in after)
    assert all(map(torch.equal, before, after))

    torch._dynamo.reset()
    compile_by(monkeypatch, FIVE_PERCENT_OFF)
    compile_blocks(d.student)
    with pytest.raises(
        RecipeError,
        match=r"wrong gradients on cpu: the student's gradient of \S+ differs .* more than rounding explains",
    ):
        check_compiled(d, text, draws)


def test_wrong_gradients_of_the_lora_teacher_alone_are_refused(monkeypatch):
    d, text, draws = distillation("PixArt")
    compile_by(monkeypatch, FIVE_PERCENT_OFF)
    compile_blocks(d.lora_teacher)
    with pytest.raises(RecipeError, match="wrong gradients on cpu: the LoRA teacher's gradient"):
        check_compiled(d, text, draws)


@pytest.mark.parametrize("value", [math.nan, None])
def test_nan_and_missing_gradients_are_refused(monkeypatch, value):
    d, text, draws = distillation("PixArt")
    spoilt = with_wrong_gradient(lambda gradient: None if value is None else torch.full_like(gradient, value))
    compile_by(monkeypatch, spoilt)
    compile_blocks(d.student)
    with pytest.raises(RecipeError, match="wrong gradients on cpu: the student's gradient"):
        check_compiled(d, text, draws)


def test_compile_errors_are_reported(monkeypatch):
    def no_compiler(graph, inputs):
        raise RuntimeError("there is no compiler")

    d, text, draws = distillation("PixArt")
    compile_by(monkeypatch, no_compiler)
    compile_blocks(d.student)
    with pytest.raises(FailedHere, match=r"cannot compile the student \(.*no compiler.*\); give loop.compile=false"):
        check_compiled(d, text, draws)


def test_errors_of_the_network_itself_are_not_blamed_on_the_compiler(monkeypatch):
    d, text, draws = distillation("PixArt")
    next(d.student.parameters()).data.fill_(math.inf)
    with pytest.raises(RecipeError, match=r"not finite, even without loop\.compile"):
        check_compiled(d, text, draws)


@pytest.mark.slow
@pytest.mark.full
def test_a_compiled_run_trains_the_same_or_does_not_start(monkeypatch, tmp_path, tiny_run, capsys):
    def run(name, *more):
        return main(tiny_run(tmp_path / name, "loop.iterations=2", *more))

    def figures(name):
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    assert run("plain") == 0
    compile_by(monkeypatch, "aot_eager")
    assert run("compiled", "loop.compile=true") == 0
    assert counters["stats"]["unique_graphs"] > 2, "nothing was compiled"
    for plain, built in zip(figures("plain"), figures("compiled"), strict=True):
        assert all(built[name] == pytest.approx(plain[name], rel=1e-3, abs=1e-9) for name in MEASURED)

    torch._dynamo.reset()
    compile_by(monkeypatch, FIVE_PERCENT_OFF)
    assert run("wrong", "loop.compile=true") == 2
    assert "Give loop.compile=false" in capsys.readouterr().err
    assert not list((tmp_path / "wrong").glob("checkpoints/*"))
