"""From the config of diffusers' `PixArtTransformer2DModel` to the arguments of the host's `PixArtMS`."""

from __future__ import annotations

from typing import Any

from .architecture import Config, check_settings, count, flag

_MOST_WIDTH, _MOST_LAYERS, _MOST_CHANNELS = 2**14, 200, 2**16
# At a smaller latent the host's position embedding divides by zero.
_LEAST_SAMPLE, _MOST_SAMPLE = 33, 2**12

# Setting -> the values that mean what the host does; the first is diffusers' default.
_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_fn": ("gelu-approximate",),
    "attention_bias": (True,),
    "attention_type": ("default",),
    "norm_elementwise_affine": (False,),
    "norm_eps": (1e-6,),
    "norm_type": ("ada_norm_single",),
    "patch_size": (2,),
}
# diffusers leaves nothing out of a config; what an older one lacks is as in this table.
_DEFAULTS = {
    "attention_head_dim": 72,
    "caption_channels": None,
    "in_channels": 4,
    "interpolation_scale": None,
    "num_attention_heads": 16,
    "num_layers": 28,
    "out_channels": 8,
    "sample_size": 128,
    "use_additional_conditions": None,
}


def pixart_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the host's `PixArtMS`.

    Raises:
        ValueError: settings that the host's PixArt does not have.
    """
    part = "PixArt"
    check_settings(part, config, _FIXED)
    whole = _DEFAULTS | dict(config)
    heads = count(part, whole, "num_attention_heads", most=_MOST_WIDTH)
    width = heads * count(part, whole, "attention_head_dim", most=_MOST_WIDTH)
    if width > _MOST_WIDTH or width % 4:
        raise ValueError(f"PixArt is {width} wide, expected a multiple of 4 up to {_MOST_WIDTH}")
    if (inner := whole.get("cross_attention_dim", width)) not in (None, width):
        raise ValueError(f"PixArt cross_attention_dim is {str(inner)[:80]}, expected {width}, as its own width")
    channels = count(part, whole, "in_channels", most=_MOST_CHANNELS)
    if (out := whole["out_channels"] or channels) not in (channels, 2 * channels):
        raise ValueError(f"PixArt out_channels is {str(out)[:80]}, expected {channels} or {2 * channels}")
    sample = count(part, whole, "sample_size", least=_LEAST_SAMPLE, most=_MOST_SAMPLE)
    conditions = sample == 128 if whole["use_additional_conditions"] is None else flag(part, whole, _CONDITIONS)
    if conditions and width % 3:
        raise ValueError(f"PixArt is {width} wide, expected a multiple of 3 with {_CONDITIONS}")
    return {
        "image_model": "pixart_alpha" if conditions else "pixart_sigma",  # how the host tells the two apart
        "in_channels": channels,
        "pred_sigma": out == 2 * channels,
        "patch_size": 2,
        "hidden_size": width,
        "num_heads": heads,
        "depth": count(part, whole, "num_layers", most=_MOST_LAYERS),
        "caption_channels": count(part, whole, "caption_channels", most=_MOST_CHANNELS),
        "micro_condition": conditions,
        "input_size": sample,
        "pe_interpolation": _interpolation(whole, sample),
    }


_CONDITIONS = "use_additional_conditions"


def _interpolation(config: dict[str, Any], sample: int) -> float:
    """diffusers divides positions by a scale and sample_size, the host by its scale and a rounded size."""
    scale = config["interpolation_scale"]
    if scale is None:
        scale = max(sample // 64, 1)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= 1000:
        raise ValueError(f"PixArt interpolation_scale is {str(scale)[:80]}, expected a number from 0 to 1000")
    return scale * (round(sample / 64) * 64) / sample
