"""From the configs of diffusers and transformers to the arguments of the host's own classes.

The host's classes are less general. A setting that they do not have is an error here, since weights would load and the
images be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Config = Mapping[str, Any]

# Setting -> the values that mean what the host does; the first is diffusers' default.
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
# transformers leaves out of a config what is as in this table.
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
        ValueError: settings that the host's UNet does not have; all of them are listed.
    """
    _check("UNet", config, _UNET_FIXED)
    widths = config["block_out_channels"]
    levels = len(widths)
    layers = config["layers_per_block"]
    layers = [layers] * levels if isinstance(layers, int) else list(layers)
    depths = config.get("transformer_layers_per_block", 1)
    depths = [depths] * levels if isinstance(depths, int) else list(depths)
    down = _depths("down", config["down_block_types"], depths)
    up = _depths("up", config["up_block_types"], depths[::-1])[::-1]
    arguments = {
        "image_size": 32,  # of no effect in the host
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "channel_mult": _multiples("UNet block_out_channels", widths),
        "num_res_blocks": layers,
        "transformer_depth": [depth for depth, n in zip(down, layers, strict=True) for _ in range(n)],
        "transformer_depth_output": [depth for depth, n in zip(up, layers, strict=True) for _ in range(n + 1)],
        "transformer_depth_middle": depths[-1],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": bool(config.get("use_linear_projection", False)),
        "context_dim": config["cross_attention_dim"],
        "legacy": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        **_heads(config, widths),
    }
    if config.get("addition_embed_type") == "text_time":
        arguments |= {"num_classes": "sequential", "adm_in_channels": config["projection_class_embeddings_input_dim"]}
    return arguments


def vae_arguments(config: Config) -> dict[str, Any]:
    """Arguments of the host's `AutoencoderKL` for a diffusers `AutoencoderKL` config.

    Raises:
        ValueError: settings that the host's VAE does not have; all of them are listed.
    """
    _check("VAE", config, _VAE_FIXED)
    widths = config["block_out_channels"]
    return {
        "embed_dim": config["latent_channels"],
        "ddconfig": {
            "double_z": True,
            "z_channels": config["latent_channels"],
            "resolution": 256,  # of no effect without attn_resolutions
            "in_channels": config["in_channels"],
            "out_ch": config["out_channels"],
            "ch": widths[0],
            "ch_mult": _multiples("VAE block_out_channels", widths),
            "num_res_blocks": config["layers_per_block"],
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
        ValueError: settings that the host's CLIP, or its tokenizer, does not have; all of them are listed.
    """
    _check("text encoder", config, _TEXT_FIXED)
    # The tokenizer's end of text; where the file says 2, it repeats a slip of the first published configs.
    return {key: config.get(key, default) for key, default in _TEXT_DEFAULTS.items()} | {"eos_token_id": 49407}


def _check(part: str, config: Config, fixed: Mapping[str, tuple[Any, ...]]) -> None:
    wrong = [
        f"{key} is {config[key]!r}, expected {' or '.join(map(repr, allowed))}"
        for key, allowed in fixed.items()
        if key in config and config[key] not in allowed
    ]
    if wrong:
        raise ValueError(f"the host has no {part} with these settings: {'; '.join(wrong)}")


def _multiples(what: str, widths: Sequence[int]) -> list[int]:
    if any(width % widths[0] for width in widths):
        raise ValueError(f"{what} {list(widths)}: the host needs multiples of the first")
    return [width // widths[0] for width in widths]


def _depths(side: str, kinds: Sequence[str], depths: Sequence[int]) -> list[int]:
    known = {f"CrossAttn{side.title()}Block2D": True, f"{side.title()}Block2D": False}
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise ValueError(f"the host has no UNet with {side} block {unknown[0]!r}, only {' and '.join(known)}")
    return [depth if known[kind] else 0 for kind, depth in zip(kinds, depths, strict=True)]


def _heads(config: Config, widths: Sequence[int]) -> dict[str, int]:
    """Either one number of heads for all levels, or one width for all heads."""
    # diffusers' name for the number of heads, kept for old checkpoints, is attention_head_dim.
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    if isinstance(heads, int):
        return {"num_heads": heads, "num_head_channels": -1}
    head_widths = {width // n for width, n in zip(widths, heads, strict=True)}
    if len(head_widths) != 1:
        raise ValueError(
            f"attention_head_dim {list(heads)} for block_out_channels {list(widths)}: heads differ in width"
        )
    return {"num_heads": -1, "num_head_channels": head_widths.pop()}
