"""The three networks of PG-SB: the student, and two teachers that share one set of frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from training.backbone import Backbone
from training.config import Lora, Recipe

StateDict = dict[str, torch.Tensor]


def lora_targets(unet: nn.Module, targets: str) -> list[str]:
    """Names of the modules that get an adapter."""
    if targets == "attention_qv":
        return ["to_q", "to_v"]
    return [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


class Teachers:
    """The frozen teacher eps_pi and the LoRA teacher eps_psi: one UNet, adapters off or on."""

    def __init__(self, unet: nn.Module, lora: Lora, seed: int) -> None:
        self.unet = unet
        with torch.random.fork_rng():  # peft draws the adapters' start from the global generator
            torch.manual_seed(seed)
            unet.add_adapter(
                LoraConfig(
                    r=lora.rank,
                    lora_alpha=lora.scaling,
                    target_modules=lora_targets(unet, lora.targets),
                    init_lora_weights="gaussian",
                )
            )
        self._layers = [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The network without its adapters: bit for bit the teacher that was loaded."""
        for layer in self._layers:
            layer.enable_adapters(False)
        try:
            yield self.unet
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)  # also gives the adapters their requires_grad back

    def lora_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.unet.parameters() if parameter.requires_grad]

    def frozen_state(self) -> StateDict:
        """Weights of the teacher alone, under the names it had before adapters were added."""
        return {
            name.replace(".base_layer.", "."): weight
            for name, weight in self.unet.state_dict().items()
            if ".lora_" not in name
        }

    def lora_state(self) -> StateDict:
        return get_peft_model_state_dict(self.unet)

    def load_lora_state(self, state: StateDict) -> None:
        """Raises ValueError when the adapters in `state` are not the adapters of this network."""
        have = self.lora_state()
        if state.keys() != have.keys():
            raise ValueError(f"LoRA weights do not fit: {len(state)} in the file, {len(have)} in the network")
        set_peft_model_state_dict(self.unet, state)


def make_student(backbone: Backbone, recipe: Recipe) -> nn.Module:
    """A trainable copy of the teacher. Call it before adapters are added to the teacher."""
    student = copy.deepcopy(backbone.unet).requires_grad_(True)
    if recipe.loop.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    return student.train()
