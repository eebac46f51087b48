"""Weight names of layouts that join some weights along their output: PixArt's and OpenCLIP's.

As in layouts.py, only the direction diffusers -> single file is written down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch

from .layouts import StateDict, from_single_file

Location = tuple[str, int, int]
"""(name in the single file, index of the part, number of parts): queries, keys and values may be one tensor there."""

_PIXART_ENDS = {
    "adaln_single.emb.aspect_ratio_embedder.linear_1": "ar_embedder.mlp.0",
    "adaln_single.emb.aspect_ratio_embedder.linear_2": "ar_embedder.mlp.2",
    "adaln_single.emb.resolution_embedder.linear_1": "csize_embedder.mlp.0",
    "adaln_single.emb.resolution_embedder.linear_2": "csize_embedder.mlp.2",
    "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "adaln_single.linear": "t_block.1",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "pos_embed.proj": "x_embedder.proj",
    "proj_out": "final_layer.linear",
}
# Name inside a block -> single-file name, index of the part along the output, number of equal parts.
_PIXART_BLOCK = {
    "attn1.to_q": ("attn.qkv", 0, 3),
    "attn1.to_k": ("attn.qkv", 1, 3),
    "attn1.to_v": ("attn.qkv", 2, 3),
    "attn1.to_out.0": ("attn.proj", 0, 1),
    "attn2.to_q": ("cross_attn.q_linear", 0, 1),
    "attn2.to_k": ("cross_attn.kv_linear", 0, 2),
    "attn2.to_v": ("cross_attn.kv_linear", 1, 2),
    "attn2.to_out.0": ("cross_attn.proj", 0, 1),
    "ff.net.0.proj": ("mlp.fc1", 0, 1),
    "ff.net.2": ("mlp.fc2", 0, 1),
}
_PIXART_KEY = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


def pixart_location(key: str) -> Location:
    """Location of a weight of a diffusers `PixArtTransformer2DModel` in the single-file layout.

    Raises:
        ValueError: the key has no equivalent in that layout.
    """
    if key == "scale_shift_table":
        return "final_layer.scale_shift_table", 0, 1
    if match := _PIXART_KEY.fullmatch(key):
        module, _, end = match[2].rpartition(".")
        if match[2] == "scale_shift_table":
            return f"blocks.{match[1]}.scale_shift_table", 0, 1
        if module in _PIXART_BLOCK:
            name, part, parts = _PIXART_BLOCK[module]
            return f"blocks.{match[1]}.{name}.{end}", part, parts
    module, _, end = key.rpartition(".")
    if module not in _PIXART_ENDS:
        raise ValueError(f"PixArt key {key!r} has no equivalent in the single-file layout")
    return f"{_PIXART_ENDS[module]}.{end}", 0, 1


def pixart_to_single_file(weights: Mapping[str, torch.Tensor]) -> StateDict:
    """Diffusers PixArt weights under their single-file names.

    Raises:
        ValueError: a key has no equivalent there, or one of queries, keys and values is missing.
    """
    found: dict[str, dict[int, torch.Tensor]] = {}
    for key, weight in weights.items():
        name, part, parts = pixart_location(key)
        found.setdefault(name, dict.fromkeys(range(parts)))[part] = weight
    if holes := [name for name, parts in found.items() if None in parts.values()]:
        raise ValueError(
            f"parts of {len(holes)} weight(s) are missing, first {_missing_part(holes[0], found[holes[0]])}"
        )
    if uneven := [name for name, parts in found.items() if len({part.shape for part in parts.values()}) > 1]:
        raise ValueError(f"parts of {len(uneven)} weight(s) differ in shape, first of {uneven[0]}")
    return {
        name: parts[0] if len(parts) == 1 else torch.cat([parts[part] for part in range(len(parts))])
        for name, parts in found.items()
    }


_OPEN_CLIP_ENDS = {
    "text_projection.weight": "text_projection",  # transposed there: `open_clip_projection`
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "final_layer_norm.weight": "ln_final.weight",
}
_OPEN_CLIP_BLOCK = {
    "layer_norm1.": ("ln_1.", 0, 1),
    "layer_norm2.": ("ln_2.", 0, 1),
    "mlp.fc1.": ("mlp.c_fc.", 0, 1),
    "mlp.fc2.": ("mlp.c_proj.", 0, 1),
    "self_attn.k_proj.": ("attn.in_proj_", 1, 3),
    "self_attn.out_proj.": ("attn.out_proj.", 0, 1),
    "self_attn.q_proj.": ("attn.in_proj_", 0, 3),
    "self_attn.v_proj.": ("attn.in_proj_", 2, 3),
}
_OPEN_CLIP_KEY = re.compile(r"encoder\.layers\.(\d+)\.(.+\.)(weight|bias)")


def open_clip_location(key: str) -> Location:
    """Location of a weight of a transformers `CLIPTextModel` in OpenCLIP's layout, which SD2.x files use.

    Raises:
        ValueError: the key has no equivalent in that layout.
    """
    key = key.removeprefix("text_model.")
    if (match := _OPEN_CLIP_KEY.fullmatch(key)) and match[2] in _OPEN_CLIP_BLOCK:
        name, part, parts = _OPEN_CLIP_BLOCK[match[2]]
        return f"transformer.resblocks.{match[1]}.{name}{match[3]}", part, parts
    if key not in _OPEN_CLIP_ENDS:
        raise ValueError(f"text encoder key {key!r} has no equivalent in OpenCLIP's layout")
    return _OPEN_CLIP_ENDS[key], 0, 1


def from_joined_single_file(
    weights: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor], place: Callable[[str], Location]
) -> StateDict:
    """Split joined weights, then rename them; weights, `like` and errors as in `from_single_file`.

    Args:
        place: `pixart_location` or `open_clip_location`.
    """
    places = {key: place(key) for key in like}
    counts = {name: parts for name, _, parts in places.values()}
    pieces: StateDict = {}
    for name, weight in weights.items():
        parts = counts.get(name, 1)
        split = weight.chunk(parts) if weight.ndim and weight.shape[0] % parts == 0 else [weight] * parts
        pieces |= {_part_name(name, part, parts): piece for part, piece in enumerate(split)}
    return from_single_file(pieces, like, lambda key: _part_name(*places[key]))


def _missing_part(name: str, parts: Mapping[int, torch.Tensor | None]) -> str:
    return _part_name(name, next(part for part, weight in parts.items() if weight is None), len(parts))


def _part_name(name: str, part: int, parts: int) -> str:
    return name if parts == 1 else f"{name} (part {part + 1} of {parts})"
