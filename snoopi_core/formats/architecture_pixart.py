"""Convert the config of diffusers' `PixArtTransformer2DModel` to the arguments of the host's `PixArtMS`."""

from __future__ import annotations

from typing import Any

from .architecture import Config, check_settings, read_count, read_flag

_MAX_WIDTH, _MAX_LAYERS, _MAX_CHANNELS = 2**14, 200, 2**16
_MAX_SAMPLE = 2**12
MIN_LATENT = 33
"""Side of the smallest latent: for smaller ones the host's position embedding divides by zero."""

_CONDITIONS = "use_additional_conditions"

# Setting -> the values that match the host's behaviour; the first is diffusers' default.
_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_fn": ("gelu-approximate",),
    "attention_bias": (True,),
    "attention_type": ("default",),
    "norm_elementwise_affine": (False,),
    "norm_eps": (1e-6,),
    "norm_type": ("ada_norm_single",),
    "patch_size": (2,),
}
# Values of settings that configs of older diffusers versions lack.
_DEFAULTS = {
    "attention_head_dim": 72,
    "caption_channels": None,
    "in_channels": 4,
    "interpolation_scale": None,
    "num_attention_heads": 16,
    "num_layers": 28,
    "out_channels": 8,
    "sample_size": 128,
    _CONDITIONS: None,
}


def pixart_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the host's `PixArtMS`.

    Raises:
        ValueError: settings that the host's PixArt lacks.
    """
    part = "PixArt"
    check_settings(part, config, _FIXED)
    settings = _DEFAULTS | dict(config)
    heads = read_count(part, settings, "num_attention_heads", most=_MAX_WIDTH)
    width = heads * read_count(part, settings, "attention_head_dim", most=_MAX_WIDTH)
    if width > _MAX_WIDTH or width % 4:
        raise ValueError(f"PixArt is {width} wide, expected a multiple of 4 up to {_MAX_WIDTH}")
    if (inner := settings.get("cross_attention_dim", width)) not in (None, width):
        raise ValueError(f"PixArt cross_attention_dim is {str(inner)[:80]}, expected {width}, the network's width")
    channels = read_count(part, settings, "in_channels", most=_MAX_CHANNELS)
    if (out := settings["out_channels"] or channels) not in (channels, 2 * channels):
        raise ValueError(f"PixArt out_channels is {str(out)[:80]}, expected {channels} or {2 * channels}")
    sample = read_count(part, settings, "sample_size", least=MIN_LATENT, most=_MAX_SAMPLE)
    conditions = sample == 128 if settings[_CONDITIONS] is None else read_flag(part, settings, _CONDITIONS)
    if conditions and width % 3:
        raise ValueError(f"PixArt is {width} wide, expected a multiple of 3 with {_CONDITIONS}")
    return {
        "image_model": "pixart_alpha" if conditions else "pixart_sigma",  # how the host distinguishes the two
        "in_channels": channels,
        "pred_sigma": out == 2 * channels,
        "patch_size": 2,
        "hidden_size": width,
        "num_heads": heads,
        "depth": read_count(part, settings, "num_layers", most=_MAX_LAYERS),
        "caption_channels": read_count(part, settings, "caption_channels", most=_MAX_CHANNELS),
        "micro_condition": conditions,
        "input_size": sample,
        "pe_interpolation": _interpolation(settings, sample),
    }


def _interpolation(config: dict[str, Any], sample: int) -> float:
    """The host's scale: it divides positions by scale and a rounded size, diffusers by scale and sample_size."""
    scale = config["interpolation_scale"]
    if scale is None:
        scale = max(sample // 64, 1)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= 1000:
        raise ValueError(f"PixArt interpolation_scale is {str(scale)[:80]}, expected a number from 0 to 1000")
    return scale * (round(sample / 64) * 64) / sample
