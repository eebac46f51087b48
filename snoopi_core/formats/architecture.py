"""Convert configs of diffusers and transformers to the arguments of the host's own classes.

The host's classes are less general. A setting that they lack is an error here, because otherwise weights would load but
images would be wrong. Every value is checked for type and range, since a file's metadata may contain anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..text_input import shorten

Config = Mapping[str, Any]

# Far above any real network: they reject configs that would take hours or all memory to check.
_MAX_CHANNELS, _MAX_LAYERS, _MAX_LEVELS = 2**16, 1000, 16
_HOST_TIME_EMBEDDING = 256  # the host's embedding width of each of SDXL's six sizes

# Setting -> the values that match the host's behaviour; the first is diffusers' default.
_UNET_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "norm_eps": (1e-5,),
    "norm_num_groups": (32,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
_VAE_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
    "norm_num_groups": (32,),
    "shift_factor": (None, 0.0),
    "use_post_quant_conv": (True,),
    "use_quant_conv": (True,),
}
_TEXT_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("quick_gelu", "gelu", "gelu_pytorch_tanh"),
    "layer_norm_eps": (1e-5,),
    "max_position_embeddings": (77,),
    "vocab_size": (49408,),
}
# transformers omits settings that have these values from a config.
_TEXT_DEFAULTS: dict[str, Any] = {
    "hidden_act": "quick_gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "max_position_embeddings": 77,
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
}


def unet_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the host's `UNetModel` for a diffusers `UNet2DConditionModel` config.

    Raises:
        ValueError: settings that the host's UNet lacks; lists all of them.
    """
    part = "UNet"
    check_settings(part, config, _UNET_FIXED)
    widths = _widths(part, config)
    levels = len(widths)
    layers = _per_level(part, config, "layers_per_block", levels)
    depths = _per_level(part, config, "transformer_layers_per_block", levels, default=1)
    down = _depths("down", part, config, depths)
    up = _depths("up", part, config, depths[::-1])[::-1]
    channels = read_count(part, config, "in_channels", most=_MAX_CHANNELS)
    if (out_channels := read_count(part, config, "out_channels", most=_MAX_CHANNELS)) != channels:
        raise ValueError(f"UNet out_channels is {out_channels}, expected {channels}, like in_channels")
    read_flag(part, config, "upcast_attention")
    arguments = {
        "image_size": 32,  # unused by the host
        "in_channels": channels,
        "out_channels": out_channels,
        "model_channels": widths[0],
        "channel_mult": _multiples("UNet block_out_channels", widths),
        "num_res_blocks": layers,
        "transformer_depth": [depth for depth, n in zip(down, layers, strict=True) for _ in range(n)],
        "transformer_depth_output": [depth for depth, n in zip(up, layers, strict=True) for _ in range(n + 1)],
        "transformer_depth_middle": depths[-1],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": read_flag(part, config, "use_linear_projection"),
        "context_dim": read_count(part, config, "cross_attention_dim", most=_MAX_CHANNELS),
        "legacy": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        **_heads(config, widths, [any(pair) for pair in zip(down, up, strict=True)]),
    }
    if config.get("addition_embed_type") == "text_time":
        key = "addition_time_embed_dim"
        if (width := read_count(part, config, key, most=_MAX_CHANNELS)) != _HOST_TIME_EMBEDDING:
            raise ValueError(f"ComfyUI has no UNet with {key} {width}, only {_HOST_TIME_EMBEDDING}")
        key, least = "projection_class_embeddings_input_dim", 6 * _HOST_TIME_EMBEDDING + 1
        added = read_count(part, config, key, least=least, most=_MAX_CHANNELS)
        arguments |= {"num_classes": "sequential", "adm_in_channels": added}
    return arguments


def vae_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the host's `AutoencoderKL` for a diffusers `AutoencoderKL` config.

    Raises:
        ValueError: settings that the host's VAE lacks; lists all of them.
    """
    part = "VAE"
    check_settings(part, config, _VAE_FIXED)
    widths = _widths(part, config)
    latent_channels = read_count(part, config, "latent_channels", most=_MAX_CHANNELS)
    return {
        "embed_dim": latent_channels,
        "ddconfig": {
            "double_z": True,
            "z_channels": latent_channels,
            "resolution": 256,  # unused without attn_resolutions
            "in_channels": read_count(part, config, "in_channels", most=_MAX_CHANNELS),
            "out_ch": read_count(part, config, "out_channels", most=_MAX_CHANNELS),
            "ch": widths[0],
            "ch_mult": _multiples("VAE block_out_channels", widths),
            "num_res_blocks": read_count(part, config, "layers_per_block", most=_MAX_LAYERS),
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }


def vae_factor(config: Config) -> int:
    """Pixels per latent cell, along one side."""
    return 2 ** (len(config["block_out_channels"]) - 1)


def text_arguments(config: Config) -> dict[str, Any]:
    """The host's CLIP config for a transformers `CLIPTextConfig`.

    Raises:
        ValueError: settings that the host's CLIP or its tokenizer lacks; lists all of them.
    """
    part = "text encoder"
    check_settings(part, config, _TEXT_FIXED)
    settings = _TEXT_DEFAULTS | {key: config[key] for key in _TEXT_DEFAULTS if key in config}
    for key in ("hidden_size", "intermediate_size"):
        read_count(part, settings, key, most=_MAX_CHANNELS)
    read_count(part, settings, "num_hidden_layers", most=_MAX_LAYERS)
    heads = read_count(part, settings, "num_attention_heads", most=_MAX_CHANNELS)
    if settings["hidden_size"] % heads:
        raise ValueError(
            f"text encoder num_attention_heads {heads} does not divide hidden_size {settings['hidden_size']}"
        )
    # The tokenizer's end of text. Files that say 2 repeat a mistake of the first published configs.
    return settings | {"eos_token_id": 49407}


def check_settings(part: str, config: Config, fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise ValueError if a setting has none of its `fixed` values."""
    wrong = [
        f"{key} is {shorten(repr(config[key]), 80)}, expected {' or '.join(map(repr, allowed))}"
        for key, allowed in fixed.items()
        if key in config and config[key] not in allowed
    ]
    if wrong:
        raise ValueError(f"ComfyUI has no {part} with these settings: {'; '.join(wrong)}")


def _is_count(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _invalid(part: str, key: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{part} {key} is {shorten(repr(value), 80)}, expected {expected}")


def read_count(part: str, config: Config, key: str, *, least: int = 1, most: int) -> int:
    if not _is_count(value := config[key], least, most):
        raise _invalid(part, key, value, f"a whole number from {least} to {most}")
    return value


def _list(value: object) -> list[Any]:
    """The elements of a list; an empty list for any other value."""
    return list(value) if isinstance(value, list | tuple) else []


def _widths(part: str, config: Config) -> list[int]:
    value = config["block_out_channels"]
    widths = _list(value)
    if not 1 <= len(widths) <= _MAX_LEVELS or not all(_is_count(width, 1, _MAX_CHANNELS) for width in widths):
        expected = f"a list of 1 to {_MAX_LEVELS} whole numbers from 1 to {_MAX_CHANNELS}"
        raise _invalid(part, "block_out_channels", value, expected)
    return widths


def _per_level(part: str, config: Config, key: str, levels: int, default: int | None = None) -> list[int]:
    value = config[key] if default is None else config.get(key, default)
    counts = _list(value) or [value] * levels
    if len(counts) != levels or not all(_is_count(n, 1, _MAX_LAYERS) for n in counts):
        raise _invalid(part, key, value, f"a whole number from 1 to {_MAX_LAYERS}, or a list of {levels} of them")
    return counts


def read_flag(part: str, config: Config, key: str) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise _invalid(part, key, value, "true or false")
    return bool(value)


def _multiples(what: str, widths: Sequence[int]) -> list[int]:
    if any(width % widths[0] for width in widths):
        raise ValueError(f"{what} {list(widths)}: expected multiples of the first, as ComfyUI needs them")
    return [width // widths[0] for width in widths]


def _depths(side: str, part: str, config: Config, depths: Sequence[int]) -> list[int]:
    """Each level's number of transformer blocks: its number in `depths` if its kind of block has attention, else 0."""
    key, levels = f"{side}_block_types", len(depths)
    kinds = _list(config[key])
    if len(kinds) != levels or not all(isinstance(kind, str) for kind in kinds):
        raise _invalid(part, key, config[key], f"a list of {levels} names, one for each of block_out_channels")
    known = {f"CrossAttn{side.title()}Block2D": True, f"{side.title()}Block2D": False}
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise ValueError(f"ComfyUI has no UNet with {side} block {unknown[0]!r}, only {' and '.join(known)}")
    return [depth if known[kind] else 0 for kind, depth in zip(kinds, depths, strict=True)]


def _heads(config: Config, widths: Sequence[int], attends: Sequence[bool]) -> dict[str, int]:
    """Either one number of heads for all levels, or one width for all heads."""
    # For compatibility with old checkpoints, diffusers calls the number of heads attention_head_dim.
    key = "num_attention_heads" if config.get("num_attention_heads") else "attention_head_dim"
    heads = _per_level("UNet", config, key, len(widths))
    # The middle block always has attention and is as wide as the last level.
    used = [pair for *pair, attending in zip(widths, heads, [*attends[:-1], True], strict=True) if attending]
    if any(width % n for width, n in used):
        raise ValueError(f"{key} {config[key]} does not divide block_out_channels {list(widths)}")
    if isinstance(config[key], int):
        return {"num_heads": heads[0], "num_head_channels": -1}
    head_widths = {width // n for width, n in used}
    if len(head_widths) != 1:
        raise ValueError(f"{key} {heads} for block_out_channels {list(widths)}: expected heads of the same width")
    return {"num_heads": -1, "num_head_channels": head_widths.pop()}
