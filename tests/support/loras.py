"""LoRAs of tiny networks, made by peft, in the key styles of published files."""

from __future__ import annotations

import copy
import json

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict

from snoopi_core.formats.checkpoint import OneStepRecipe, Provenance
from snoopi_core.formats.lora import LoraMetadata

RANK, ALPHA = 4, 8.0
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def lora_metadata(**changes):
    settings = {
        "title": "student", "prediction_type": "epsilon",
        "recipe": OneStepRecipe(timesteps=(600,), alpha_T=0.6, sigma_T=0.8), "recommended_alpha": 0.3,
        "provenance": Provenance(step=7), **changes,
    }  # fmt: skip
    return LoraMetadata(**settings)


def with_adapters(network, targets=ATTENTION):
    """(network with its LoRA merged, peft's state dict of it)."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, init_lora_weights=False)
        adapted = get_peft_model(copy.deepcopy(network), config)
    weights = {key: weight.half() for key, weight in get_peft_model_state_dict(adapted).items()}
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.half().float()
    return adapted.merge_and_unload().eval(), weights


def kohya(weights, alpha=True):
    out = {}
    for key, weight in weights.items():
        module, side = key.removeprefix("base_model.model.").rsplit(".lora_", 1)
        name = "lora_unet_" + module.replace(".", "_")
        out[f"{name}.lora_{'down' if side.startswith('A') else 'up'}.weight"] = weight
        if alpha:
            out[f"{name}.alpha"] = torch.tensor(ALPHA)
    return out


def renamed(weights, prefix, down=".lora_A.weight", up=".lora_B.weight"):
    out = {}
    for key, weight in weights.items():
        module, side = key.removeprefix("base_model.model.").rsplit(".lora_", 1)
        out[prefix + module + (down if side.startswith("A") else up)] = weight
    return out


STYLES = {
    "kohya": lambda w: (kohya(w), {}),
    "diffusers": lambda w: (renamed(w, "unet."), {"lora_adapter_metadata": adapter_settings("unet.")}),
    "older diffusers": lambda w: (
        {f"{k}": v for k, v in renamed(w, "unet.", ".lora.down.weight", ".lora.up.weight").items()},
        {"lora_adapter_metadata": adapter_settings("unet.")},
    ),
    "peft": lambda w: (dict(w), {"lora_adapter_metadata": adapter_settings("base_model.model.")}),
}


def adapter_settings(prefix, **more):
    return json.dumps({f"{prefix}{key}": value for key, value in {"r": RANK, "lora_alpha": ALPHA, **more}.items()})
