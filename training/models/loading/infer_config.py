"""Infer the configs of published networks from the names and shapes of their weights in single files.

What shapes do not show is taken from the published models: 8 heads in Stable Diffusion 1; heads of 64 channels in
Stable Diffusion 2 and in CLIP, and of 72 in PixArt.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch

Shapes = Mapping[str, torch.Tensor]
_HEADS_SD1, _HEAD_WIDTH, _HEAD_WIDTH_PIXART = 8, 64, 72
_LATENT_SCALE = 0.18215
_TIME_WIDTH = 256  # of the embedding of each of SDXL's six sizes
_PATCH = 2
_POSITIONS_512 = (512 // 8 // _PATCH) ** 2
_TOKENS_ALPHA = 120


def unet_config(weights: Shapes) -> dict[str, Any]:
    """The config of a `UNet2DConditionModel` (diffusers), for Stable Diffusion 1 or 2.

    Raises:
        KeyError: a weight is missing that every such network has.
    """
    levels: list[list[int]] = [[]]  # for each level, the input block of each of its layers
    for block in itertools.count(1):
        if f"input_blocks.{block}.0.op.weight" in weights:
            levels.append([])
        elif f"input_blocks.{block}.0.in_layers.2.weight" in weights:
            levels[-1].append(block)
        else:
            break
    widths = [weights[f"input_blocks.{level[0]}.0.out_layers.3.weight"].shape[0] for level in levels]
    attends = [f"input_blocks.{level[0]}.1.norm.weight" in weights for level in levels]
    linear = weights["middle_block.1.proj_in.weight"].ndim == 2  # as in Stable Diffusion 2
    return {
        "sample_size": 64,
        "in_channels": weights["input_blocks.0.0.weight"].shape[1],
        "out_channels": weights["out.2.weight"].shape[0],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if attending else "DownBlock2D" for attending in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attending else "UpBlock2D" for attending in reversed(attends)],
        "cross_attention_dim": weights["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": [max(1, width // _HEAD_WIDTH) for width in widths] if linear else _HEADS_SD1,
        "use_linear_projection": linear,
    }


def sdxl_config(weights: Shapes) -> dict[str, Any]:
    """The config of a `UNet2DConditionModel` (diffusers), for Stable Diffusion XL.

    Raises:
        KeyError: a weight is missing that every such network has.
        ValueError: the depths of its transformers are not those of such a network.
    """
    config = unet_config(weights)
    stride, name = config["layers_per_block"] + 1, "{}.1.transformer_blocks.{{}}.norm1.weight"
    levels = [f"input_blocks.{1 + level * stride}" for level in range(len(config["block_out_channels"]))]
    depths = [count_numbered(weights, name.format(block)) for block in levels]
    middle = count_numbered(weights, "middle_block.1.transformer_blocks.{}.norm1.weight")
    if middle != depths[-1]:
        raise ValueError(
            f"its middle has {middle} transformer block(s), expected {depths[-1]} as the level before it: it is not "
            "Stable Diffusion XL's base, but a relative such as its refiner"
        )
    return config | {
        "sample_size": 128,
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIME_WIDTH,
        "projection_class_embeddings_input_dim": weights["label_emb.0.0.weight"].shape[1],
    }


def clip_config(token_embedding: torch.Tensor, *, layers: int, sd2: bool) -> dict[str, Any]:
    """The config of a `CLIPTextModel` (transformers).

    Args:
        token_embedding: the weight (vocabulary, width).
        sd2: for Stable Diffusion 2 instead of 1.
    """
    vocabulary, width = token_embedding.shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "hidden_act": "gelu" if sd2 else "quick_gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 0 if sd2 else 49407,
    }


def vae_config(weights: Shapes, *, scale: float = _LATENT_SCALE) -> dict[str, Any]:
    """The config of an `AutoencoderKL` (diffusers), for Stable Diffusion. scale: of its latents.

    Raises:
        KeyError: a weight is missing that every such network has.
    """
    levels = count_numbered(weights, "encoder.down.{}.block.0.conv1.weight")
    return {
        "block_out_channels": [weights[f"encoder.down.{n}.block.0.conv1.weight"].shape[0] for n in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count_numbered(weights, "encoder.down.0.block.{}.conv1.weight"),
        "latent_channels": weights["post_quant_conv.weight"].shape[0],
        "scaling_factor": scale,
    }


def pixart_config(weights: Shapes) -> dict[str, Any]:
    """The config of a `PixArtTransformer2DModel` (diffusers), for PixArt-alpha at 512 px.

    Raises:
        KeyError: a weight is missing that every such network has.
        ValueError: the weights belong to another PixArt model.
    """
    width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
    null, positions = weights.get("y_embedder.y_embedding"), weights.get("pos_embed")
    if null is not None and len(null) != _TOKENS_ALPHA:
        raise ValueError(f"it takes {len(null)} text tokens (PixArt-Sigma: 300), PixArt-alpha {_TOKENS_ALPHA}")
    if positions is not None and positions.shape[-2] != _POSITIONS_512:
        raise ValueError(f"it has {positions.shape[-2]} positions, expected {_POSITIONS_512} as in PixArt at 512 px")
    if width % _HEAD_WIDTH_PIXART or patch != _PATCH:
        raise ValueError(
            f"its width is {width} and its patch size {patch}, expected a multiple of {_HEAD_WIDTH_PIXART} and {_PATCH}"
        )
    return {
        "sample_size": 64,
        "in_channels": channels,
        "out_channels": weights["final_layer.linear.weight"].shape[0] // patch**2,
        "num_layers": count_numbered(weights, "blocks.{}.attn.qkv.weight"),
        "num_attention_heads": width // _HEAD_WIDTH_PIXART,
        "attention_head_dim": _HEAD_WIDTH_PIXART,
        "cross_attention_dim": width,
        "caption_channels": weights["y_embedder.y_proj.fc1.weight"].shape[1],
        "use_additional_conditions": "csize_embedder.mlp.0.weight" in weights,
    }


def count_numbered(weights: Shapes, name: str) -> int:
    """How many of the names `name.format(0)`, `name.format(1)`, ... follow each other in `weights`."""
    return next(number for number in itertools.count() if name.format(number) not in weights)
