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
    """Names of the modules that get an adapter."""
    if targets in _TARGETS:
        return _TARGETS[targets]
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def add_lora(network: nn.Module, *, rank: int, scaling: float, targets: str, seed: int) -> None:
    """Give a network adapters, in fp32, that begin as no change (Gaussian A, B = 0); they alone are trained then."""
    with torch.random.fork_rng():  # peft draws the adapters' start from the global generator
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank, lora_alpha=scaling, target_modules=lora_targets(network, targets), init_lora_weights="gaussian"
        )
        inject_adapter_in_model(config, network)
    cast_training_params(network, torch.float32)


class Teachers:
    """The frozen teacher eps_pi and the LoRA teacher eps_psi: one network, adapters off or on."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network = network
        lora = recipe.lora
        add_lora(network, rank=lora.rank, scaling=lora.scaling, targets=lora.targets, seed=recipe.seed)
        if recipe.loop.gradient_checkpointing:  # for the LoRA teacher's own update; without a graph it does nothing
            network.enable_gradient_checkpointing()
        self._layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The network without its adapters: bit for bit the teacher that was loaded. For use without gradients."""
        trained = self.lora_parameters()
        for layer in self._layers:
            layer.enable_adapters(False)
        for parameter in trained:
            parameter.requires_grad_(True)  # FSDP fixes it for good in the first forward
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
    """The student, in fp32 where it is trained: a copy of the teacher's network, before that gets adapters.

    Args:
        weights: to start from; None = the teacher's.
        share: a LoRA student that starts as the teacher uses the teacher's very weights, frozen for both.
    """
    settings = recipe.student
    shared = settings.train == "lora" and weights is None and share
    # deepcopy takes what its memo knows as copied already
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
