"""The three networks of PG-SB: the student, and two teachers that share one set of frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from training.config import Recipe

_TARGETS = {"attention_qv": ["to_q", "to_v"], "attention": ["to_q", "to_k", "to_v", "to_out.0"]}


def lora_targets(network: nn.Module, targets: str) -> list[str]:
    """Names of the modules that get an adapter; `targets` is one of the recipe's values of lora.targets."""
    if targets in _TARGETS:
        return _TARGETS[targets]
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def add_lora(network: nn.Module, *, rank: int, scaling: float, targets: str, seed: int) -> None:
    """Add LoRA adapters in fp32 that initially change nothing (A Gaussian, B = 0), and freeze all other weights."""
    with torch.random.fork_rng():  # peft initialises adapters from the global generator
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank, lora_alpha=scaling, target_modules=lora_targets(network, targets), init_lora_weights="gaussian"
        )
        inject_adapter_in_model(config, network)
    cast_training_params(network, torch.float32)


class Teachers:
    """The frozen teacher eps_pi and the LoRA teacher eps_psi: one network with its adapters off or on."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network = network
        lora = recipe.lora
        add_lora(network, rank=lora.rank, scaling=lora.scaling, targets=lora.targets, seed=recipe.seed)
        if recipe.loop.gradient_checkpointing:  # for the LoRA teacher's update; no effect without gradients
            network.enable_gradient_checkpointing()
        self._layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The network with its adapters off: bit for bit the loaded teacher. Only for use without gradients."""
        trained = self.lora_parameters()
        for layer in self._layers:
            layer.enable_adapters(False)
        for parameter in trained:
            parameter.requires_grad_(True)  # disabling cleared it, and FSDP reads it once, in the first forward
        try:
            yield self.network
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)

    def lora_parameters(self) -> list[nn.Parameter]:
        return trainable(self.network)


def trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def make_student(
    network: nn.Module, recipe: Recipe, *, weights: dict[str, torch.Tensor] | None = None, share: bool = True
) -> nn.Module:
    """Make the student: a copy of the teacher's network, with trained weights in fp32. Call it before `Teachers`.

    Args:
        weights: initial weights; None = the teacher's.
        share: let a LoRA student that starts from the teacher share the teacher's frozen weights in memory.
    """
    settings = recipe.student
    shared = settings.train == "lora" and weights is None and share
    # deepcopy does not copy objects in its memo
    student = copy.deepcopy(network, memo={id(weight): weight for weight in network.parameters()} if shared else {})
    if weights is not None:
        student.load_state_dict(weights)
    if settings.train == "lora":
        add_lora(
            student,
            rank=settings.lora_rank,
            scaling=settings.lora_scaling,
            targets=settings.lora_targets,
            seed=recipe.seed,
        )
    else:
        student.float().requires_grad_(True)
    if recipe.loop.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    return student.train()
