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
    EulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tiny import SDXL_SCALE, tiny_t5_tokenizer, tiny_vae
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.formats.layouts import text_encoder_rename, to_single_file, unet_rename, vae_rename
from training.models.clip_tokenizer import clip_tokenizer
from training.models.text_pair import TextEncoderPair

KINDS = ("sd15", "sd21", "sdxl", "pixart")
POOLED = 32
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
        elif kind == "sdxl":
            network = UNet2DConditionModel(
                sample_size=128, layers_per_block=1, cross_attention_dim=2 * TEXT_WIDTH, block_out_channels=(64, 128),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=(1, 2),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=POOLED + 6 * 256,
            )  # fmt: skip
            first = CLIPTextModel(CLIPTextConfig(**_CLIP, num_hidden_layers=2, pad_token_id=49407))
            second = CLIPTextConfig(
                **_CLIP, num_hidden_layers=3, hidden_act="gelu", pad_token_id=0, projection_dim=POOLED
            )
            text = TextEncoderPair(first, CLIPTextModelWithProjection(second))
            scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
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
        vae = tiny_vae(SDXL_SCALE) if kind == "sdxl" else tiny_vae()
    for module in (network, text, vae):
        module.eval().requires_grad_(False)
    padded = clip_tokenizer("!")
    words = {
        "sd15": clip_tokenizer,
        "sd21": lambda: padded,
        "sdxl": lambda: (clip_tokenizer(), padded),
        "pixart": tiny_t5_tokenizer,
    }[kind]()
    return {"network": network, "text_encoder": text, "tokenizer": words, "vae": vae, "scheduler": scheduler}


def save_folder(folder: Path, kind: str, **changed: Any) -> str:
    """The diffusers folder of a model, by diffusers."""
    parts = {**published(kind), **changed}
    shared = {name: parts[name] for name in ("text_encoder", "tokenizer", "vae", "scheduler")}
    if kind == "pixart":
        PixArtAlphaPipeline(transformer=parts["network"], **shared).save_pretrained(folder)
    elif kind == "sdxl":
        pair, (first, second) = shared.pop("text_encoder"), shared.pop("tokenizer")
        StableDiffusionXLPipeline(
            unet=parts["network"], text_encoder=pair.first, text_encoder_2=pair.second, tokenizer=first,
            tokenizer_2=second, add_watermarker=False, **shared,
        ).save_pretrained(folder)  # fmt: skip
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
    elif kind == "sdxl":
        pair = parts["text_encoder"]
        text = clip_weights(pair.first, "conditioner.embedders.0.transformer.")
        text |= {f"conditioner.embedders.1.model.{key}": w for key, w in open_clip_weights(pair.second).items()}
    else:
        whole = open_clip_tower().state_dict()
        text = {f"cond_stage_model.model.{k}": w for k, w in whole.items() if not k.startswith("visual.")}
    return weights | text


def clip_weights(text_encoder: CLIPTextModel, prefix: str = "cond_stage_model.transformer.") -> dict[str, torch.Tensor]:
    """A text encoder in the layout of Stable Diffusion 1 files."""
    return {prefix + text_encoder_rename(key): weight for key, weight in text_encoder.state_dict().items()}


def open_clip_weights(text_encoder: CLIPTextModelWithProjection) -> dict[str, torch.Tensor]:
    """A text encoder under OpenCLIP's names, written out: joined projections, and the pooled one transposed."""
    ours = {key.removeprefix("text_model."): weight for key, weight in text_encoder.state_dict().items()}
    out = {
        "token_embedding.weight": ours["embeddings.token_embedding.weight"],
        "positional_embedding": ours["embeddings.position_embedding.weight"],
        "text_projection": ours["text_projection.weight"].T,
    }
    out |= {f"ln_final.{end}": ours[f"final_layer_norm.{end}"] for end in ("weight", "bias")}
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    names |= {"attn.out_proj": "self_attn.out_proj"}
    for n in range(text_encoder.config.num_hidden_layers):
        layer, block = f"encoder.layers.{n}.", f"transformer.resblocks.{n}."
        for end in ("weight", "bias"):
            out |= {f"{block}{new}.{end}": ours[f"{layer}{old}.{end}"] for new, old in names.items()}
            joined = [ours[f"{layer}self_attn.{part}_proj.{end}"] for part in "qkv"]
            out[f"{block}attn.in_proj_{end}"] = torch.cat(joined)
    return out


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
