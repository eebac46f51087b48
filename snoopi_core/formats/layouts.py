"""Names of weights: diffusers' layout and the single-file ("LDM") layout that every Stable Diffusion program reads.

Only the direction diffusers -> single-file is written down, key by key; the way back looks up, for each key that a
diffusers model has, the name it would have in a single file. One table therefore serves exporter and trainer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

Rename = Callable[[str], str]
StateDict = dict[str, torch.Tensor]

_RESNET_UNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def _swap_head(key: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if key.startswith(old + "."):
            return new + key[len(old) :]
    return key


def unet_rename(config: Mapping[str, Any]) -> Rename:
    """Key map of a diffusers `UNet2DConditionModel`, from its config, into the single-file layout.

    Raises:
        ValueError: (from the map) a key has no place in the single-file layout.
    """
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        raise ValueError(f"layers_per_block {layers!r}: the single-file layout has one number of layers for all blocks")
    stride = layers + 1

    def rename(key: str) -> str:
        if match := _BLOCK.fullmatch(key):
            side, level, kind, layer, tail = match[1], int(match[2]), match[3], int(match[4]), match[5]
            if side == "down":
                if kind == "downsamplers":
                    return f"input_blocks.{(level + 1) * stride}.0.op.{tail.removeprefix('conv.')}"
                index = f"input_blocks.{1 + level * stride + layer}"
            else:
                if kind == "upsamplers":
                    has_attention = "CrossAttn" in config["up_block_types"][level]
                    return f"output_blocks.{level * stride + layers}.{2 if has_attention else 1}.{tail}"
                index = f"output_blocks.{level * stride + layer}"
            return f"{index}.0.{_swap_head(tail, _RESNET_UNET)}" if kind == "resnets" else f"{index}.1.{tail}"
        if match := _MID.fullmatch(key):
            if match[1] == "attentions":
                return f"middle_block.1.{match[3]}"
            return f"middle_block.{2 * int(match[2])}.{_swap_head(match[3], _RESNET_UNET)}"
        renamed = _swap_head(key, _UNET_ENDS)
        if renamed == key:
            raise ValueError(f"UNet key {key!r} has no place in the single-file layout")
        return renamed

    return rename


def vae_rename(config: Mapping[str, Any]) -> Rename:
    """Key map of a diffusers `AutoencoderKL`, from its config, into the single-file layout."""
    levels = len(config["block_out_channels"])

    def rename(key: str) -> str:
        half, dot, rest = key.partition(".")
        if half not in ("encoder", "decoder") or not dot:
            return key  # quant_conv, post_quant_conv: same name in both
        if match := _BLOCK.fullmatch(rest):
            side, level, kind, layer, tail = match[1], int(match[2]), match[3], match[4], match[5]
            index = f"{half}.{side}.{level if side == 'down' else levels - 1 - level}"
            if kind == "resnets":
                return f"{index}.block.{layer}.{_swap_head(tail, {'conv_shortcut': 'nin_shortcut'})}"
            return f"{index}.{side}sample.{tail}"
        if match := _MID.fullmatch(rest):
            if match[1] == "attentions":
                return f"{half}.mid.attn_1.{_swap_head(match[3], _VAE_ATTENTION)}"
            return f"{half}.mid.block_{int(match[2]) + 1}.{_swap_head(match[3], {'conv_shortcut': 'nin_shortcut'})}"
        return f"{half}.{_swap_head(rest, {'conv_norm_out': 'norm_out'})}"

    return rename


def text_encoder_rename(key: str) -> str:
    """Key of a transformers `CLIPTextModel`, with the `text_model.` that transformers 5 dropped."""
    return key if key.startswith("text_model.") else f"text_model.{key}"


def to_single_file(weights: Mapping[str, torch.Tensor], rename: Rename) -> StateDict:
    """Diffusers weights under their single-file names; the VAE's attention becomes 1x1 convolutions, as it is there."""
    out = {}
    for key, weight in weights.items():
        name = rename(key)
        is_conv = ".attn_1." in name and weight.ndim == 2
        out[name] = weight[:, :, None, None] if is_conv else weight
    return out


def from_single_file(
    weights: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor], rename: Rename
) -> StateDict:
    """The way back: weights for every key of `like` (a diffusers model's state dict; meta tensors will do).

    Raises:
        ValueError: keys are missing, left over, or of another shape; all of them are counted, the first few named.
    """
    names = {key: rename(key) for key in like}
    problems = [f"missing {name}" for name in names.values() if name not in weights]
    problems += [f"not expected {name}" for name in sorted(set(weights) - set(names.values()))]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(like[key].shape)}"
        for key, name in names.items()
        if name in weights and weights[name].numel() != like[key].numel()
    ]
    if problems:
        shown = "; ".join(problems[:5])
        raise ValueError(f"weights and config do not match in {len(problems)} place(s): {shown}")
    return {key: weights[name].reshape(like[key].shape) for key, name in names.items()}


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
# Name inside a block -> single-file name, which of its equal parts along the output, and how many there are.
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


def pixart_place(key: str) -> tuple[str, int, int]:
    """Where a weight of a diffusers `PixArtTransformer2DModel` lies in the single-file layout.

    Returns:
        (name, which of its parts, how many parts): queries, keys and values are one tensor there.

    Raises:
        ValueError: the key has no place in that layout.
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
        raise ValueError(f"PixArt key {key!r} has no place in the single-file layout")
    return f"{_PIXART_ENDS[module]}.{end}", 0, 1


def pixart_to_single_file(weights: Mapping[str, torch.Tensor]) -> StateDict:
    """Diffusers PixArt weights under their single-file names.

    Raises:
        ValueError: a key has no place there, or a part of queries, keys and values is missing.
    """
    found: dict[str, dict[int, torch.Tensor]] = {}
    for key, weight in weights.items():
        name, part, parts = pixart_place(key)
        found.setdefault(name, dict.fromkeys(range(parts)))[part] = weight
    if holes := [name for name, parts in found.items() if None in parts.values()]:
        raise ValueError(f"parts of {len(holes)} weight(s) are missing, first {_hole(holes[0], found[holes[0]])}")
    if uneven := [name for name, parts in found.items() if len({part.shape for part in parts.values()}) > 1]:
        raise ValueError(f"parts of {len(uneven)} weight(s) differ in shape, first of {uneven[0]}")
    return {
        name: parts[0] if len(parts) == 1 else torch.cat([parts[part] for part in range(len(parts))])
        for name, parts in found.items()
    }


def pixart_from_single_file(weights: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> StateDict:
    """The way back: weights for every key of `like` (a diffusers transformer's state dict; meta tensors will do).

    Raises:
        ValueError: see `from_single_file`.
    """
    return _from_joined(weights, like, pixart_place)


_OPEN_CLIP_ENDS = {
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


def open_clip_place(key: str) -> tuple[str, int, int]:
    """Where a weight of a transformers `CLIPTextModel` lies in OpenCLIP's layout, as SD2.x's files have it.

    Returns:
        See `pixart_place`.

    Raises:
        ValueError: the key has no place in that layout.
    """
    key = key.removeprefix("text_model.")
    if (match := _OPEN_CLIP_KEY.fullmatch(key)) and match[2] in _OPEN_CLIP_BLOCK:
        name, part, parts = _OPEN_CLIP_BLOCK[match[2]]
        return f"transformer.resblocks.{match[1]}.{name}{match[3]}", part, parts
    if key not in _OPEN_CLIP_ENDS:
        raise ValueError(f"text encoder key {key!r} has no place in OpenCLIP's layout")
    return _OPEN_CLIP_ENDS[key], 0, 1


def open_clip_from_single_file(weights: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> StateDict:
    """OpenCLIP's weights for every key of `like` (a transformers `CLIPTextModel`'s state dict).

    Raises:
        ValueError: see `from_single_file`.
    """
    return _from_joined(weights, like, open_clip_place)


def _from_joined(
    weights: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor], place: Callable[[str], tuple[str, int, int]]
) -> StateDict:
    """From a layout in which some weights are joined along their output."""
    places = {key: place(key) for key in like}
    counts = {name: parts for name, _, parts in places.values()}
    pieces: StateDict = {}
    for name, weight in weights.items():
        parts = counts.get(name, 1)
        split = weight.chunk(parts) if weight.ndim and weight.shape[0] % parts == 0 else [weight] * parts
        pieces |= {_piece(name, part, parts): piece for part, piece in enumerate(split)}
    return from_single_file(pieces, like, lambda key: _piece(*places[key]))


def _hole(name: str, parts: Mapping[int, torch.Tensor | None]) -> str:
    return _piece(name, next(part for part, weight in parts.items() if weight is None), len(parts))


def _piece(name: str, part: int, parts: int) -> str:
    return name if parts == 1 else f"{name} (part {part + 1} of {parts})"
