"""Published networks at their full size, as keys and shapes: on the meta device and in sparse files.

The configs are those of the models' own repositories, which fixes the keys; no weight is ever allocated.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel

from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.formats.layouts import to_single_file, unet_rename

_CROSS_DOWN, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (_CROSS_DOWN,) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + (_CROSS_UP,) * 3,
    "layers_per_block": 2,
    "sample_size": 64,
}
_SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", _CROSS_DOWN, _CROSS_DOWN),
    "up_block_types": (_CROSS_UP, _CROSS_UP, "UpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
_PIXART = {"caption_channels": 4096, "out_channels": 8, "sample_size": 64, "use_additional_conditions": False}
UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8},
    "SD2.1": {
        **_SD,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "SDXL": {**_SDXL, "transformer_layers_per_block": (1, 2, 10)},
    "SDXL refiner": {
        **_SDXL,
        "block_out_channels": (384, 768, 1536, 1536),
        "down_block_types": ("DownBlock2D", _CROSS_DOWN, _CROSS_DOWN, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", _CROSS_UP, _CROSS_UP, "UpBlock2D"),
        "attention_head_dim": (6, 12, 24, 24),
        "cross_attention_dim": 1280,
        "projection_class_embeddings_input_dim": 2560,
        "transformer_layers_per_block": 4,
    },
    "SSD-1B": {
        **_SDXL,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": ((1, 1), (2, 2), (4, 4)),
        "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), (1, 1, 1)),
    },
    "Vega": {
        **_SDXL,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": ((1, 1), (1, 1), (2, 2)),
        "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), (1, 1, 1)),
    },
}
PIXARTS: dict[str, dict[str, Any]] = {
    "PixArt-alpha 512": _PIXART,
    "PixArt-alpha 1024": {**_PIXART, "sample_size": 128, "use_additional_conditions": True},
    "PixArt-sigma 1024": {**_PIXART, "sample_size": 128},
}
NETWORKS = UNETS | PIXARTS
_DTYPES = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}


@functools.cache
def meta_network(name: str) -> torch.nn.Module:
    """The diffusers network on the meta device."""
    with torch.device("meta"):
        if name in PIXARTS:
            return PixArtTransformer2DModel(**PIXARTS[name])
        return UNet2DConditionModel(**UNETS[name])


def diffusers_weights(name: str) -> dict[str, torch.Tensor]:
    return dict(meta_network(name).state_dict())


def single_file_weights(name: str) -> dict[str, torch.Tensor]:
    """By our own table, which tests/snoopi_core/formats/test_layouts.py compares with diffusers' converters."""
    network = meta_network(name)
    if name in PIXARTS:
        return pixart_to_single_file(network.state_dict())
    return to_single_file(network.state_dict(), unet_rename(network.config))


def write_sparse(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """A sparse safetensors file: meta tensors are holes, which take no disk space and read as zeros."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset, filled = 0, []
    for name, weight in weights.items():
        kind = dtype if weight.is_meta else weight.dtype
        size = weight.numel() * kind.itemsize
        header[name] = {"dtype": _DTYPES[kind], "shape": list(weight.shape), "data_offsets": [offset, offset + size]}
        if not weight.is_meta:
            filled.append((offset, weight))
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
        for start, weight in filled:
            file.seek(8 + len(text) + start)
            file.write(weight.contiguous().numpy().tobytes())
    return path
