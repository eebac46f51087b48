"""Diffusers folders of the published teachers at their full size, with only what `without_weights` reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from full_size import meta_network
from safetensors.torch import save_file
from tiny import PIXART_SCHEDULE, tiny_t5_tokenizer
from transformers import CLIPTextConfig, T5Config

from snoopi_core.formats.checkpoint import Schedule
from training.models.clip_tokenizer import clip_tokenizer

NAMES = {"sd15": "SD1.5", "sd21": "SD2.1", "sdxl": "SDXL", "pixart": "PixArt-alpha 512"}
_VAE = {
    "_class_name": AutoencoderKL.__name__,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_TEXT = {
    "sd15": CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "sd21": CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16),
    "sdxl": CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "pixart": T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    ),
}


_TEXT_2 = CLIPTextConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
)


def write_description(folder: Path, kind: str) -> str:
    """A teacher's folder; `kind` is sd15, sd21, sdxl or pixart."""
    pixart = kind == "pixart"
    meta_network(NAMES[kind]).save_config(folder / ("transformer" if pixart else "unet"))
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps(_VAE), encoding="utf-8")
    _TEXT[kind].save_pretrained(folder / "text_encoder")
    (tiny_t5_tokenizer() if pixart else clip_tokenizer()).save_pretrained(folder / "tokenizer")
    if kind == "sdxl":
        _TEXT_2.save_pretrained(folder / "text_encoder_2")
        clip_tokenizer("!").save_pretrained(folder / "tokenizer_2")
    schedule = PIXART_SCHEDULE if pixart else Schedule()
    DDPMScheduler(**schedule.model_dump()).save_pretrained(folder / "scheduler")
    encoders = ["text_encoder", "text_encoder_2"] if kind == "sdxl" else ["text_encoder"]
    for part in ("transformer" if pixart else "unet", "vae", *encoders):  # only their headers are read
        name = "model" if part in encoders else "diffusion_pytorch_model"
        save_file({"none": torch.zeros(1)}, folder / part / f"{name}.safetensors")
    return str(folder)
