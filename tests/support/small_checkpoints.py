"""Small copies of the checkpoints of Stable Diffusion 1.5 and XL, and a four-step LoRA of each, by the exporter."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import small_vaes
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from published import clip_weights, open_clip_weights
from small_copies import Weights
from small_models import seeded
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from snoopi_core.formats.architecture import text_arguments, unet_arguments
from snoopi_core.formats.checkpoint import OneStepRecipe, Schedule
from snoopi_core.formats.layouts import to_single_file, unet_rename
from snoopi_core.formats.lora import LoraMetadata, write_lora

CHECKPOINTS = {"v1-5-pruned-emaonly-fp16": "SD1.5", "sd_xl_base_1.0": "SDXL"}
LORAS = {"my_4_step_lora_sd15": "SD1.5", "my_4_step_lora_sdxl": "SDXL"}
TIMESTEPS = (999, 749, 499, 249)
_DOWN, _UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
_WIDTH, _POOLED = 64, 64
_UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": {
        "block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 768, "attention_head_dim": 8,
    },
    "SDXL": {
        "block_out_channels": (32, 64, 64), "cross_attention_dim": 2 * _WIDTH, "attention_head_dim": (2, 4, 4),
        "down_block_types": (_DOWN[0], _DOWN[1], _DOWN[1]), "up_block_types": (_UP[1], _UP[1], _UP[0]),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": _POOLED + 6 * 256,
    },
}  # fmt: skip
# What the host recognises each by.
_PUBLISHED = {
    "SD1.5": {"input_blocks.0.0.weight": [320, 4, 3, 3]},
    "SDXL": {
        "input_blocks.0.0.weight": [320, 4, 3, 3],
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": [640, 2048],
        "label_emb.0.0.weight": [1280, 2816],
    },
}
_TEXT = {"hidden_size": _WIDTH, "intermediate_size": _WIDTH, "num_attention_heads": 1, "num_hidden_layers": 3}


@functools.cache
def _unet(kind: str) -> UNet2DConditionModel:
    return seeded(UNet2DConditionModel, **_UNETS[kind])


@torch.no_grad()
def checkpoint(kind: str) -> tuple[Weights, dict[str, Any]]:
    """The weights, and what their file declares. SD1.5's text encoder has the published size."""
    unet = _unet(kind)
    weights = to_single_file(unet.state_dict(), unet_rename(unet.config))
    weights = {f"model.diffusion_model.{key}": weight for key, weight in weights.items()}
    weights |= {f"first_stage_model.{key}": weight for key, weight in small_vaes.picture(4).items()}
    declaration = {"published": _PUBLISHED[kind], "network": unet_arguments(unet.config)}
    if kind == "SD1.5":
        config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        weights |= clip_weights(CLIPTextModel(config).half())
        return weights, declaration
    first, second = CLIPTextConfig(**_TEXT), CLIPTextConfig(**_TEXT, hidden_act="gelu", projection_dim=_POOLED)
    weights |= clip_weights(CLIPTextModel(first), "conditioner.embedders.0.transformer.")
    encoder = open_clip_weights(CLIPTextModelWithProjection(second))
    weights |= {f"conditioner.embedders.1.model.{key}": weight for key, weight in encoder.items()}
    sizes = {
        f"clip_{name}_model_config": text_arguments(config.to_dict())
        for name, config in zip("lg", (first, second), strict=True)
    }
    return weights, declaration | {"classes": {"comfy.sdxl_clip:SDXLClipModel": {"model_options": sizes}}}


def write_student(path: Path, kind: str) -> None:
    """A LoRA with random weights, by the exporter's own writer."""
    generator, adapters = torch.Generator().manual_seed(3), {}
    for name, module in _unet(kind).named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            width, inside = module.weight.shape
            down = torch.randn(2, inside, generator=generator) / inside**0.5
            adapters[name] = down, 0.2 * torch.randn(width, 2, generator=generator)
    power = DDPMScheduler(**Schedule().model_dump()).alphas_cumprod[TIMESTEPS[0]].item()
    recipe = OneStepRecipe(timesteps=TIMESTEPS, alpha_T=power**0.5, sigma_T=(1 - power) ** 0.5)
    write_lora(path, LoraMetadata(title="mine", prediction_type="epsilon", recipe=recipe), adapters, alpha=2.0)
