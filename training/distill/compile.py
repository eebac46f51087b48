"""torch.compile of the networks, and a comparison of the gradients that they then have with those they should have.

The compiler is wrong at times, without a word: on a CPU, torch 2.11 gets the input's gradient of a transformer block of
SD1.5 wrong by 5 %, while all that goes forward is right to 1e-6. Minutes at the start cost less than a student that was
trained on wrong gradients.
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
    """What rounding explains, for compiled kernels round in other places: of a weight's gradient, relative to its norm
    or to `floor` times the largest norm of any weight's, the larger of the two, a difference in any direction and one
    along the gradient, in which rounding cancels."""

    any_way: float
    along: float
    floor: float


# With kernels that are right, a UNet of SD1.5's form differs by 4e-5 at most in fp32; in bf16 by 0.08, and 0.017 along.
LIMITS = {"no": Limits(any_way=1e-3, along=1e-3, floor=0.01), "bf16": Limits(any_way=0.25, along=0.04, floor=0.1)}


@dataclass(frozen=True)
class Difference:
    """The gradient, by its weight's name, that exceeds its limits by most; above 1, rounding does not explain it."""

    name: str
    any_way: float
    along: float
    excess: float


def compile_blocks(network: nn.Module) -> None:
    """torch.compile, block by block: minutes where the whole network takes an hour, for nearly the same speed."""
    # blocks of a kind share torch's limit of 8 graphs, beyond which it goes on uncompiled; a UNet has residual blocks
    # of twelve shapes, and the teacher runs with and without adapters, with and without gradients
    torch.compiler.config.recompile_limit = max(64, torch.compiler.config.recompile_limit)
    for module in network.modules():
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            module.compile()


def check_compiled(d: Distillation, text: TextEmbeddings, draws: Draws) -> None:
    """Compare the gradients of both trained networks with what they are uncompiled. Changes nothing.

    Args:
        text, draws: as many rows as a micro-batch has.

    Raises:
        RecipeError: they differ by more than rounding explains, in any process.
        FailedHere: torch cannot compile them.
    """
    players = {
        # not the loss: while both teachers still agree, its gradient is zero
        "student": (d.student, lambda: (d.student_x0(draws.z, text) * draws.eps).mean()),
        "LoRA teacher": (d.lora_teacher, lambda: d.lora_teacher_loss(draws.z, text, draws.lora[0])),
    }
    for who, (network, loss) in players.items():
        try:
            found = gradient_difference(network, loss, d.accelerator, LIMITS[d.recipe.loop.precision])
        except TorchDynamoException as error:
            reason = shorten(str(error), 300)
            raise FailedHere(
                f"loop.compile: torch {torch.__version__} cannot compile the {who} ({reason}); give loop.compile=false"
            ) from error
        worst = max(gather_object([found]), key=lambda difference: difference.excess)
        if worst.excess > 1:
            raise RecipeError(
                f"loop.compile: torch {torch.__version__} builds kernels for {draws.z.device.type} that compute wrong "
                f"gradients: the {who}'s differ from the uncompiled ones by {worst.any_way:.2g}, relative, "
                f"{worst.along:.2g} along the gradient, in {worst.name}; rounding does not explain it. Give "
                "loop.compile=false, or try another version of torch"
            )


def gradient_difference(
    network: nn.Module, loss: Callable[[], torch.Tensor], accelerator: Accelerator, limits: Limits
) -> Difference:
    """Between the gradients of `loss` with and without compiled kernels: the largest, measured by `limits`.

    The uncompiled network's wait on the CPU, in fp32, as large as what is trained. Afterwards there are none.

    Raises:
        RecipeError: they are not finite, though nothing was compiled.
    """
    with _no_zeros(network):
        with torch.compiler.set_stance("force_eager"):
            accelerator.backward(loss())
        plain = {name: gradient.float().cpu() for name, gradient in _gradients(network)}
        accelerator.backward(loss())
        built = dict(_gradients(network))
    norms = {name: gradient.norm().item() for name, gradient in plain.items()}
    if not all(map(math.isfinite, norms.values())):
        raise RecipeError("gradients are not finite, without loop.compile too: is the teacher whole?")
    floor = max(limits.floor * max(norms.values()), torch.finfo(torch.float32).tiny)
    differences = [_compare(name, plain[name], built, max(norms[name], floor), limits) for name in plain]
    return max(differences, key=lambda difference: difference.excess)


def _compare(name: str, plain: torch.Tensor, built: dict[str, torch.Tensor], norm: float, limits: Limits) -> Difference:
    if name not in built:
        return Difference(name, any_way=1.0, along=1.0, excess=math.inf)
    difference = built[name].float().cpu() - plain
    any_way = difference.norm().item() / norm
    along = abs((difference * plain).sum().item()) / norm**2
    excess = max(any_way / limits.any_way, along / limits.along)
    return Difference(name, any_way=any_way, along=along, excess=math.inf if math.isnan(any_way) else excess)


def _gradients(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Of what is trained, by name; taken from the network."""
    for name, weight in network.named_parameters():
        if weight.grad is not None:
            gradient, weight.grad = weight.grad, None
            yield name.removeprefix("module."), _local(gradient)  # DDP's


@contextmanager
def _no_zeros(network: nn.Module) -> Iterator[None]:
    """Trained weights that are all zero hold something else: those of adapters are at first, and hide the gradients of
    the others."""
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
    """This process's part, which shares its memory, without a graph."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # FSDP's
