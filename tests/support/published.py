"""Tiny models that follow the conventions of published ones, which readers of single files rely on; and their files.

8 heads in Stable Diffusion 1, heads of 64 channels in 2 and in CLIP, of 72 in PixArt; latents scaled by 0.18215.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tiny import tiny_t5_tokenizer, tiny_vae
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.formats.layouts import text_encoder_rename, to_single_file, unet_rename, vae_rename
from training.models.clip_tokenizer import clip_tokenizer

KINDS = ("sd15", "sd21", "pixart")
TEXT_WIDTH = 64
NETWORK = "model.diffusion_model."
_SD_SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True}
_UNET = {
    "sample_size": 64, "layers_per_block": 1, "cross_attention_dim": TEXT_WIDTH,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
_CLIP = {
    "hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH, "num_attention_heads": 1,
    "bos_token_id": 49406, "eos_token_id": 49407,
}  # fmt: skip


@functools.cache
def published(kind: str) -> dict[str, Any]:
    """network, text_encoder, tokenizer, vae and scheduler; cached, so tests must not change them."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if kind == "pixart":
            network = PixArtTransformer2DModel(
                num_attention_heads=1, attention_head_dim=72, num_layers=2, cross_attention_dim=72, sample_size=64,
                caption_channels=TEXT_WIDTH, out_channels=8, use_additional_conditions=False,
            )  # fmt: skip
            text = T5EncoderModel(
                T5Config(vocab_size=98, d_model=TEXT_WIDTH, d_kv=32, d_ff=64, num_layers=2, num_heads=2,
                         feed_forward_proj="gated-gelu")
            )  # fmt: skip
            scheduler = DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
        elif kind == "sd21":
            network = UNet2DConditionModel(
                **_UNET, block_out_channels=(64, 128), attention_head_dim=(1, 2), use_linear_projection=True
            )
            text = CLIPTextModel(CLIPTextConfig(**_CLIP, num_hidden_layers=3, hidden_act="gelu", pad_token_id=0))
            scheduler = PNDMScheduler(**_SD_SCHEDULE)
        else:
            network = UNet2DConditionModel(**_UNET, block_out_channels=(32, 64), attention_head_dim=8)
            text = CLIPTextModel(CLIPTextConfig(**_CLIP, num_hidden_layers=2, pad_token_id=49407))
            scheduler = PNDMScheduler(**_SD_SCHEDULE)
        vae = tiny_vae()
    for module in (network, text, vae):
        module.eval().requires_grad_(False)
    words = {"sd15": clip_tokenizer, "sd21": lambda: clip_tokenizer("!"), "pixart": tiny_t5_tokenizer}[kind]()
    return {"network": network, "text_encoder": text, "tokenizer": words, "vae": vae, "scheduler": scheduler}


def save_folder(folder: Path, kind: str, **changed: Any) -> str:
    """The diffusers folder of a model, by diffusers."""
    parts = {**published(kind), **changed}
    shared = {name: parts[name] for name in ("text_encoder", "tokenizer", "vae", "scheduler")}
    if kind == "pixart":
        PixArtAlphaPipeline(transformer=parts["network"], **shared).save_pretrained(folder)
    else:
        StableDiffusionPipeline(
            unet=parts["network"], safety_checker=None, feature_extractor=None, requires_safety_checker=False, **shared
        ).save_pretrained(folder)
    return str(folder)


def single_file_weights(kind: str) -> dict[str, torch.Tensor]:
    """A model in the layout of its published single file; for PixArt, only the transformer."""
    parts = published(kind)
    network = parts["network"]
    if kind == "pixart":
        return pixart_to_single_file(network.state_dict())
    weights = {NETWORK + key: w for key, w in to_single_file(network.state_dict(), unet_rename(network.config)).items()}
    vae = to_single_file(parts["vae"].state_dict(), vae_rename(parts["vae"].config))
    weights |= {f"first_stage_model.{key}": weight for key, weight in vae.items()}
    if kind == "sd15":
        text = clip_weights(parts["text_encoder"])
    else:
        whole = open_clip_tower().state_dict()
        text = {f"cond_stage_model.model.{k}": w for k, w in whole.items() if not k.startswith("visual.")}
    return weights | text


def clip_weights(text_encoder: CLIPTextModel) -> dict[str, torch.Tensor]:
    """A text encoder in the layout of Stable Diffusion 1 files."""
    weights = text_encoder.state_dict()
    return {f"cond_stage_model.transformer.{text_encoder_rename(key)}": weight for key, weight in weights.items()}


@functools.cache
def open_clip_tower() -> open_clip.CLIP:
    """OpenCLIP's own model with four text layers; Stable Diffusion 2 uses three."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        text = {"context_length": 77, "vocab_size": 49408, "width": TEXT_WIDTH, "heads": 1, "layers": 4}
        image = {"layers": 1, "width": 64, "patch_size": 32, "image_size": 32, "head_width": 32}
        return open_clip.CLIP(embed_dim=TEXT_WIDTH, vision_cfg=image, text_cfg=text).eval().requires_grad_(False)


@torch.no_grad()
def open_clip_states(ids: torch.Tensor) -> torch.Tensor:
    """The text encoding of Stable Diffusion 2's original code: the normed output of the last layer but one."""
    tower = open_clip_tower()
    x = tower.token_embedding(ids) + tower.positional_embedding
    for block in tower.transformer.resblocks[:-1]:
        x = block(x, attn_mask=tower.attn_mask)
    return tower.ln_final(x)


def write(path: Path, weights: dict[str, torch.Tensor], **header: str) -> str:
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path, metadata=header)
    return str(path)
