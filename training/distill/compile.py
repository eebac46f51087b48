"""torch.compile of the networks, and a check of compiled gradients against uncompiled ones.

The compiler can silently be wrong: on a CPU, torch 2.11 computes the input gradient of an SD1.5 transformer block with
an error of 5 %, while the forward pass is right to 1e-6. Checking takes minutes at the start, which is less than what a
training on wrong gradients would waste.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from training.config import RecipeError
from training.config.errors import FailedHere
from training.distill.networks import trainable
from training.distill.rng import Draws, generator
from training.distill.step import Distillation
from training.models.text_embeddings import TextEmbeddings


@dataclass(frozen=True)
class Limits:
    """Differences of a gradient that rounding can explain; compiled kernels round in other places.

    total: norm of the difference. along: its component along the gradient, where rounding errors cancel. Both relative
    to the gradient's norm, or to `floor` times the largest norm of any weight's gradient if that is larger.
    """

    total: float
    along: float
    floor: float


# Measured with correct kernels on a UNet of SD1.5's form: at most 4e-5 in fp32; in bf16 0.08, and 0.017 along.
LIMITS = {"no": Limits(total=1e-3, along=1e-3, floor=0.01), "bf16": Limits(total=0.25, along=0.04, floor=0.1)}


@dataclass(frozen=True)
class Difference:
    """Difference of one weight's gradient. excess: in units of the limits; above 1, rounding does not explain it."""

    name: str
    total: float
    along: float
    excess: float


def compile_blocks(network: nn.Module) -> None:
    """torch.compile each block. This takes minutes, not an hour as for the whole network, and runs nearly as fast."""
    # Blocks of one class share a limit of 8 graphs, above which torch runs them uncompiled. A UNet has residual blocks
    # of twelve shapes, and the teacher runs with and without adapters, with and without gradients.
    torch.compiler.config.recompile_limit = max(64, torch.compiler.config.recompile_limit)
    for module in network.modules():
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            module.compile()


def check_compiled(d: Distillation, text: TextEmbeddings, draws: Draws) -> None:
    """Compare the compiled gradients of both trained networks with the uncompiled ones. Changes nothing.

    Args:
        text, draws: of one micro-batch.

    Raises:
        RecipeError: they differ by more than rounding explains, in some process.
        FailedHere: torch cannot compile a network.
    """
    loop = d.recipe.loop
    # TF32 rounds factors to 10 bits, bf16 to 7; of the limits that were measured, only bf16's allow for it
    rounding = "bf16" if loop.tf32 and draws.z.device.type == "cuda" else loop.precision
    losses = {
        # not L_VSD: its gradient is zero as long as both teachers agree
        "student": (d.student, lambda: (d.student_x0(draws.z, text) * draws.eps).mean()),
        "LoRA teacher": (d.lora_teacher, lambda: d.lora_teacher_loss(draws.z, text, draws.lora[0])),
    }
    for name, (network, loss) in losses.items():
        try:
            found = gradient_difference(network, loss, d.accelerator, LIMITS[rounding])
        except TorchDynamoException as error:
            reason = shorten(str(error), 300)
            raise FailedHere(
                f"loop.compile: torch {torch.__version__} cannot compile the {name} ({reason}); give loop.compile=false"
            ) from error
        worst = max(gather_object([found]), key=lambda difference: difference.excess)
        if worst.excess > 1:
            raise RecipeError(
                f"loop.compile: torch {torch.__version__} computes wrong gradients on {draws.z.device.type}: "
                f"the {name}'s gradient of {worst.name} differs from the uncompiled one by {worst.total:.2g}, "
                f"relative, and {worst.along:.2g} along the gradient, more than rounding explains. Give "
                "loop.compile=false, or try another version of torch"
            )


def gradient_difference(
    network: nn.Module, loss: Callable[[], torch.Tensor], accelerator: Accelerator, limits: Limits
) -> Difference:
    """The largest difference, by `limits`, between the gradients of `loss` with and without compiled kernels.

    The uncompiled gradients are held on the CPU, in fp32. Afterwards the network has no gradients.

    Raises:
        RecipeError: the uncompiled gradients are not finite.
    """
    with _no_zeros(network):
        with torch.compiler.set_stance("force_eager"):
            accelerator.backward(loss())
        plain = {name: gradient.float().cpu() for name, gradient in _gradients(network)}
        accelerator.backward(loss())
        built = dict(_gradients(network))
    norms = {name: gradient.norm().item() for name, gradient in plain.items()}
    if not all(map(math.isfinite, norms.values())):
        raise RecipeError("gradients are not finite, even without loop.compile; check the teacher's files")
    floor = max(limits.floor * max(norms.values()), torch.finfo(torch.float32).tiny)
    differences = [_compare(name, plain[name], built, max(norms[name], floor), limits) for name in plain]
    return max(differences, key=lambda difference: difference.excess)


def _compare(name: str, plain: torch.Tensor, built: dict[str, torch.Tensor], norm: float, limits: Limits) -> Difference:
    if name not in built:
        return Difference(name, total=1.0, along=1.0, excess=math.inf)
    difference = built[name].float().cpu() - plain
    total = difference.norm().item() / norm
    along = abs((difference * plain).sum().item()) / norm**2
    excess = max(total / limits.total, along / limits.along)
    return Difference(name, total=total, along=along, excess=math.inf if math.isnan(total) else excess)


def _gradients(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Gradients by name; removes them from the network."""
    for name, weight in network.named_parameters():
        if weight.grad is not None:
            gradient, weight.grad = weight.grad, None
            yield name.removeprefix("module."), _local(gradient)  # added by DDP


@contextmanager
def _no_zeros(network: nn.Module) -> Iterator[None]:
    """Inside this context, all-zero trained weights are random: an adapter's zero weights make the gradients of
    its other weights zero."""
    rng = generator(0, "no zeros")
    zeros = [weight for weight in map(_local, trainable(network)) if not weight.any()]
    for weight in zeros:
        weight.copy_(0.01 * torch.randn(weight.shape, generator=rng))
    try:
        yield
    finally:
        for weight in zeros:
            weight.zero_()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard (the same memory), detached."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a DTensor of FSDP
