"""Weight names: convert between diffusers' layout and the single-file ("LDM") layout of Stable Diffusion programs.

Only the direction diffusers -> single file is written down. The reverse looks up the single-file name of each key of a
diffusers model, so one table serves both the exporter and the trainer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .tensor_file import StateDict

Rename = Callable[[str], str]

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
_RESNET_VAE = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def _replace_prefix(key: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if key.startswith(old + "."):
            return new + key[len(old) :]
    return key


def unet_rename(config: Mapping[str, Any]) -> Rename:
    """Key map from a diffusers `UNet2DConditionModel` with this config to the single-file layout.

    Raises:
        ValueError: the config, or (from the map) a key, has no equivalent in the single-file layout.
    """
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        raise ValueError(f"layers_per_block is {layers!r}, expected one number: the single-file layout has no lists")
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
            return f"{index}.0.{_replace_prefix(tail, _RESNET_UNET)}" if kind == "resnets" else f"{index}.1.{tail}"
        if match := _MID.fullmatch(key):
            if match[1] == "attentions":
                return f"middle_block.1.{match[3]}"
            return f"middle_block.{2 * int(match[2])}.{_replace_prefix(match[3], _RESNET_UNET)}"
        renamed = _replace_prefix(key, _UNET_ENDS)
        if renamed == key:
            raise ValueError(f"UNet key {key!r} has no equivalent in the single-file layout")
        return renamed

    return rename


def vae_rename(config: Mapping[str, Any]) -> Rename:
    """Key map from a diffusers `AutoencoderKL` with this config to the single-file layout."""
    levels = len(config["block_out_channels"])

    def rename(key: str) -> str:
        half, dot, rest = key.partition(".")
        if half not in ("encoder", "decoder") or not dot:
            return key  # quant_conv, post_quant_conv: the same in both layouts
        if match := _BLOCK.fullmatch(rest):
            side, level, kind, layer, tail = match[1], int(match[2]), match[3], match[4], match[5]
            index = f"{half}.{side}.{level if side == 'down' else levels - 1 - level}"
            if kind == "resnets":
                return f"{index}.block.{layer}.{_replace_prefix(tail, _RESNET_VAE)}"
            return f"{index}.{side}sample.{tail}"
        if match := _MID.fullmatch(rest):
            if match[1] == "attentions":
                return f"{half}.mid.attn_1.{_replace_prefix(match[3], _VAE_ATTENTION)}"
            return f"{half}.mid.block_{int(match[2]) + 1}.{_replace_prefix(match[3], _RESNET_VAE)}"
        return f"{half}.{_replace_prefix(rest, {'conv_norm_out': 'norm_out'})}"

    return rename


def text_encoder_rename(key: str) -> str:
    """Key of a transformers `CLIPTextModel`, with the prefix `text_model.` that transformers 5 removed."""
    return key if key.startswith("text_model.") else f"text_model.{key}"


def to_single_file(weights: Mapping[str, torch.Tensor], rename: Rename) -> StateDict:
    """Diffusers weights under their single-file names; the VAE's attention weights become 1x1 convolutions."""
    out = {}
    for key, weight in weights.items():
        name = rename(key)
        is_conv = ".attn_1." in name and weight.ndim == 2
        out[name] = weight[:, :, None, None] if is_conv else weight
    return out


def from_single_file(
    weights: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor], rename: Rename
) -> StateDict:
    """The reverse of `to_single_file`.

    Args:
        like: state dict of the diffusers model, for keys and shapes; may be on the meta device.

    Raises:
        ValueError: missing or unexpected keys, or wrong shapes; gives their number and the first five.
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
