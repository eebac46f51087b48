"""Writes Stable Diffusion 1.5 with random weights as a diffusers folder, full-size or with every width scaled down.

The arithmetic is that of the real model; the images are noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from training.models.clip_tokenizer import clip_tokenizer


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Widths of an SD1.5-like network. `side`: of the latent, in latent pixels. `vae`: width of its first level."""

    name: str
    widths: tuple[int, ...]
    text_width: int
    text_layers: int
    text_heads: int
    side: int
    vae: int


SHAPES = {
    "sd15": Shape(
        name="SD1.5", widths=(320, 640, 1280, 1280), text_width=768, text_layers=12, text_heads=12, side=64, vae=128
    ),
    "sd15-small": Shape(
        name="SD1.5 with widths x 0.4",
        widths=(128, 256, 512, 512),
        text_width=312,
        text_layers=12,
        text_heads=12,
        side=32,
        vae=32,
    ),
    "sd15-tiny": Shape(
        name="SD1.5 with widths x 0.1",
        widths=(32, 64, 128, 128),
        text_width=96,
        text_layers=2,
        text_heads=12,
        side=8,
        vae=32,
    ),
}
PROMPTS = tuple(
    f"{what} {where}, {how}"
    for what in ("a lighthouse", "two foxes", "an old tram", "a bowl of pears")
    for where in ("in the fog", "by the river", "under a red sky", "in an empty square")
    for how in ("oil on canvas", "35 mm photograph")
)


def write_model(shape: Shape, folder: Path) -> None:
    """Write the parts of a diffusers pipeline, a tiny decoder in `taesd`, and `prompts.txt`."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=shape.side,
        block_out_channels=shape.widths,
        cross_attention_dim=shape.text_width,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ).save_pretrained(folder / "unet")
    CLIPTextModel(
        CLIPTextConfig(
            hidden_size=shape.text_width,
            intermediate_size=4 * shape.text_width,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.text_heads,
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    ).save_pretrained(folder / "text_encoder")
    AutoencoderKL(
        block_out_channels=(shape.vae, 2 * shape.vae, 4 * shape.vae, 4 * shape.vae),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    AutoencoderTiny().save_pretrained(folder / "taesd")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")


def write_clip(folder: Path, name: str = "ViT-B-32") -> None:
    """Write an open_clip model with random weights as `clip.safetensors`."""
    torch.manual_seed(0)
    save_file(open_clip.create_model(name).state_dict(), folder / "clip.safetensors")
