"""Text encoders and VAE of the published single files at their full size, as keys and shapes."""

from __future__ import annotations

import functools

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel

from snoopi_core.formats.layouts import to_single_file, vae_rename

Weights = dict[str, torch.Tensor]
PREFIX = "model.diffusion_model."


def prefixed(weights: Weights) -> Weights:
    """A network's weights as single files name them."""
    return {PREFIX + key: weight.contiguous() for key, weight in weights.items()}


def clip_weights(prefix: str, layers: int, width: int) -> Weights:
    """Keys and shapes of a CLIP text encoder, as transformers names them."""
    config = CLIPTextConfig(num_hidden_layers=layers, hidden_size=width, intermediate_size=4 * width)
    with torch.device("meta"):
        names = CLIPTextModel(config).state_dict()
    return {f"{prefix}text_model.{key.removeprefix('text_model.')}": weight for key, weight in names.items()}


def open_clip_weights(prefix: str, layers: int, width: int) -> Weights:
    """Keys and shapes of an OpenCLIP text encoder."""
    meta = functools.partial(torch.empty, device="meta")
    out = {
        "positional_embedding": meta(77, width), "token_embedding.weight": meta(49408, width),
        "ln_final.weight": meta(width), "ln_final.bias": meta(width), "text_projection": meta(width, width),
        "logit_scale": meta(()),
    }  # fmt: skip
    block = {
        "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
        "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,),
    }  # fmt: skip
    for layer in range(layers):
        out |= {f"transformer.resblocks.{layer}.{key}": meta(*shape) for key, shape in block.items()}
    return {prefix + key: weight for key, weight in out.items()}


@functools.cache
def vae_weights() -> Weights:
    """Keys and shapes of the VAE that all of them share, as single files name them."""
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4,
        )  # fmt: skip
    single = to_single_file(vae.state_dict(), vae_rename(vae.config))
    return {f"first_stage_model.{key}": weight for key, weight in single.items()}


TEXT = {
    "SD1.5": lambda: clip_weights("cond_stage_model.transformer.", 12, 768),
    "SD2.1": lambda: open_clip_weights("cond_stage_model.model.", 24, 1024),
    "SDXL": lambda: (
        clip_weights("conditioner.embedders.0.transformer.", 12, 768)
        | open_clip_weights("conditioner.embedders.1.model.", 32, 1280)
    ),
    "SDXL refiner": lambda: open_clip_weights("conditioner.embedders.0.model.", 32, 1280),
}
