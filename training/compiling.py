"""torch.compile of the networks, and the proof that what it built computes the gradients that were asked for.

The compiler is wrong at times, without a word: on a CPU, torch 2.11 gets the input's gradient of a transformer block
wrong by 5 %, while all that goes forward is right to 1e-6. A minute at the start costs less than a student trained on
wrong gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from training.config import RecipeError
from training.iteration import Distillation
from training.noise import Draws

# What rounding explains: compiled kernels round in other places. With right ones, on a UNet of SD1.5's form, the
# largest `gradient_difference` is 4e-5 in fp32 and 0.08 in bf16.
TOLERANCES = {"no": 1e-3, "bf16": 0.25}
_FLOOR = 0.1  # of the largest gradient: of smaller ones, rounding may be a large part


def compile_blocks(network: nn.Module) -> None:
    """torch.compile, block by block: minutes where the whole network takes an hour, for nearly the same speed."""
    # blocks of a kind share torch's limit of 8 graphs, beyond which it goes on uncompiled; a UNet has residual blocks
    # of twelve shapes, and the teacher runs with and without adapters, with and without gradients
    torch.compiler.config.recompile_limit = max(64, torch.compiler.config.recompile_limit)
    for module in network.modules():
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            module.compile()


def check_compiled(d: Distillation, draws: Draws) -> None:
    """Compare the gradients of both trained networks with what they are uncompiled, for the null prompt.

    Args:
        draws: noise for as many rows as a micro-batch has, in this process.

    Raises:
        RecipeError: they differ by more than rounding explains, in any process.
    """
    text = d.null.expand(len(draws.z))
    players = {
        # not the loss: while both teachers still agree, its gradient is zero
        "student": (d.student, lambda: (d.student_x0(draws.z, text) * draws.eps).mean()),
        "LoRA teacher": (d.lora_teacher, lambda: d.lora_teacher_loss(draws.z, text, draws.lora[0])),
    }
    for who, (network, loss) in players.items():
        allowed = TOLERANCES[d.recipe.loop.precision]
        difference, name = gradient_difference(network, loss, d.accelerator)
        worst = d.accelerator.gather(torch.tensor([difference], device=draws.z.device)).max().item()
        if not worst <= allowed:
            raise RecipeError(
                f"loop.compile: torch {torch.__version__} builds kernels for this {draws.z.device.type} that compute "
                f"wrong gradients: the {who}'s differ from the uncompiled ones by {worst:.2g}, relative (here most in "
                f"{name}), and rounding explains {allowed:g}. Give loop.compile=false, or try another version of torch"
            )


def gradient_difference(
    network: nn.Module, loss: Callable[[], torch.Tensor], accelerator: Accelerator
) -> tuple[float, str]:
    """Between `loss`'s gradients with and without compiled kernels: the largest of any weight, relative to the norm of
    that weight's gradient, and the weight's name. Gradients are let go of; copies wait on the CPU."""

    def gradients() -> dict[str, torch.Tensor]:
        accelerator.backward(loss())
        found = {}
        for name, weight in network.named_parameters():
            if weight.grad is not None:
                shard = weight.grad.to_local() if hasattr(weight.grad, "to_local") else weight.grad  # FSDP
                found[name] = shard.float().cpu()
                weight.grad = None
        return found

    with torch.compiler.set_stance("force_eager"):
        plain = gradients()
    built = gradients()
    norms = {name: gradient.norm().item() for name, gradient in plain.items()}
    floor = max(_FLOOR * max(norms.values()), torch.finfo(torch.float32).tiny)
    return max(
        ((built[name] - gradient).norm().item() / max(norms[name], floor), name) for name, gradient in plain.items()
    )
