"""The smallest networks that the host recognises as the published families, with random weights, in fp32."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel
from full_size_parts import prefixed
from safetensors.torch import save_file

from snoopi_core.formats.layouts import to_single_file, unet_rename

Network = TypeVar("Network", bound=torch.nn.Module)
BLOCK, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
# The smallest networks that the host recognises: the families' widths, with fewer levels.
SMALL = {
    "SD1.5": {"cross_attention_dim": 768, "attention_head_dim": 8, "layers_per_block": 1},
    "SD2.1": {
        "cross_attention_dim": 1024, "attention_head_dim": 5, "layers_per_block": 1, "use_linear_projection": True,
    },
    "SDXL": {
        "cross_attention_dim": 2048, "attention_head_dim": 5, "layers_per_block": 2, "use_linear_projection": True,
        "transformer_layers_per_block": (1, 1, 2), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
PIXART = {"num_layers": 1, "caption_channels": 4096, "sample_size": 64}


def seeded(build: type[Network], **config: Any) -> Network:
    """A network with random weights, without zeros and ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(**config).eval().requires_grad_(False)
        for weight in network.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return network


@functools.lru_cache(maxsize=1)  # SDXL's has 1 GB
def small_unet(name: str) -> UNet2DConditionModel:
    levels = {"block_out_channels": (320,), "down_block_types": (BLOCK,), "up_block_types": (UP,)}
    if name == "SDXL":  # Vega's depths
        levels = {
            "block_out_channels": (320,) * 3,
            "down_block_types": ("DownBlock2D", BLOCK, BLOCK),
            "up_block_types": (UP, UP, "UpBlock2D"),
        }
    return seeded(UNet2DConditionModel, **levels, **SMALL[name])


@functools.cache
def small_pixart(conditions: bool) -> PixArtTransformer2DModel:
    return seeded(PixArtTransformer2DModel, **PIXART, use_additional_conditions=conditions)


def unet_file(path: Path, name: str = "SD1.5", **more: torch.Tensor) -> UNet2DConditionModel:
    """The network as a single file with additional weights."""
    unet = small_unet(name)
    save_file({**prefixed(to_single_file(unet.state_dict(), unet_rename(unet.config))), **more}, path)
    return unet
