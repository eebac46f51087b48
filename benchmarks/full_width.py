"""Networks that people run now, at full width with a few of their blocks: what NASA costs a block does not depend on
how many there are.

With two heads instead of all, they are small networks of the same classes, which tests use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from network_sizes import Model

_Blocks = dict[str, Any]
_FEW = 2


def _flux(heads: int) -> _Blocks:
    return {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096,
        "hidden_size": 128 * heads, "mlp_ratio": 4.0, "num_heads": heads, "depth": 1, "depth_single_blocks": 2,
        "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True, "txt_ids_dims": [],
        "guidance_embed": False,
    }  # fmt: skip


def _hunyuan_video(heads: int) -> _Blocks:
    flux = {key: value for key, value in _flux(heads).items() if key != "txt_ids_dims"}
    return {
        **flux, "image_model": "hunyuan_video", "patch_size": [1, 2, 2], "theta": 256, "guidance_embed": True,
        "byt5": False, "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None,
        "meanflow_sum": False,
    }  # fmt: skip


def _qwen_image(heads: int) -> _Blocks:
    return {"image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "num_attention_heads": heads}


def _z_image(heads: int) -> _Blocks:
    return {
        "image_model": "lumina2", "in_channels": 16, "dim": 128 * heads, "n_layers": 2, "n_refiner_layers": 1,
        "n_heads": heads, "n_kv_heads": heads, "cap_feat_dim": 2560, "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512], "qk_norm": True, "rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0,
        "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32, "patch_size": 2,
    }  # fmt: skip


def _wan(heads: int) -> _Blocks:
    return {
        "image_model": "wan2.1", "model_type": "t2v", "dim": 128 * heads, "ffn_dim": 13824 * heads // 40,
        "freq_dim": 256, "text_dim": 4096, "num_heads": heads, "num_layers": 2, "in_dim": 16, "out_dim": 16,
    }  # fmt: skip


def _ltx(heads: int) -> _Blocks:
    return {
        "image_model": "ltxav", "num_layers": 2, "connector_num_layers": 1, "cross_attention_dim": 128 * heads,
        "attention_head_dim": 128, "num_attention_heads": heads, "audio_cross_attention_dim": 64 * heads,
        "audio_attention_head_dim": 64, "audio_num_attention_heads": heads, "caption_proj_before_connector": True,
        "caption_projection_first_linear": False, "cross_attention_adaln": True, "apply_gated_attention": True,
        "rope_type": "split", "connector_attention_head_dim": 128, "connector_num_attention_heads": heads,
        "audio_connector_attention_head_dim": 64, "audio_connector_num_attention_heads": heads,
    }  # fmt: skip


def _models(name: str, config: str, arguments: Callable[[int], _Blocks], heads: int, **sizes: Any) -> dict[str, Model]:
    """The network with all heads, and as `NAME-quick` with two and a small latent. `template`: the size of
    ComfyUI's template for it, in words and as latents, as `NAME-template`."""
    key, shapes, template = sizes.pop("key"), sizes.pop("shapes"), sizes.pop("template", None)
    quick = tuple((channels, *(min(side, 4) for side in sides)) for channels, *sides in shapes)
    if key.startswith("ltx"):
        sizes["width"], narrow = 192 * heads, {"width": 192 * _FEW}  # of video and sound, behind the connectors
        quick = (quick[0], (*quick[1][:2], 16))
    else:
        narrow = {}
    full = Model(name=name, config=config, arguments=arguments(heads), shapes=shapes, **sizes)
    small = Model(
        name=f"{name}, {_FEW} heads",
        config=config,
        arguments=arguments(_FEW),
        shapes=quick,
        **{**sizes, "tokens": 32, **narrow},
    )
    models = {key: full, f"{key}-quick": small}
    if template is not None:
        called, larger = template
        whole = f"{', '.join(name.split(', ')[:2])}, {called}"
        models[f"{key}-template"] = dataclasses.replace(full, name=whole, shapes=larger)
    return models


CURRENT = {
    **_models(
        "LTX-2.3, 2 of 48 blocks, 768x512, 49 frames", "LTXAV", _ltx, 32, key="ltx23",
        shapes=((128, 7, 16, 24), (8, 51, 16)), tokens=1024,
        template=("640x360, 121 frames", ((128, 16, 11, 20), (8, 126, 16))),
    ),
    **_models(
        "Wan 2.2 14B, 2 of 40 blocks, 480x320, 17 frames", "WAN21_T2V", _wan, 40, key="wan22",
        shapes=((16, 5, 40, 60),), tokens=512, width=4096,
        template=("640x640, 81 frames", ((16, 21, 80, 80),)),
    ),
    **_models(
        "Flux, 3 of 57 blocks, 1024x1024", "FluxSchnell", _flux, 24, key="flux", shapes=((16, 128, 128),), tokens=512,
        width=4096, pooled=768, core_nag=True,
    ),
    **_models(
        "Flux, 3 of 57 blocks, 512 image tokens", "FluxSchnell", _flux, 24, key="flux-small", shapes=((16, 32, 64),),
        tokens=512, width=4096, pooled=768, core_nag=True,
    ),
    **_models(
        "Qwen-Image, 2 of 60 blocks, 1024x1024", "QwenImage", _qwen_image, 24, key="qwen-image",
        shapes=((16, 1, 128, 128),), tokens=128, width=3584,
    ),
    **_models(
        "Z-Image, 2 of 30 blocks, 1024x1024", "ZImage", _z_image, 30, key="z-image", shapes=((16, 128, 128),),
        tokens=128, width=2560,
    ),
    **_models(
        "HunyuanVideo, 3 of 60 blocks, 848x480, 17 frames", "HunyuanVideo", _hunyuan_video, 24, key="hunyuan-video",
        shapes=((16, 5, 60, 106),), tokens=256, width=4096, pooled=768,
        template=("848x480, 73 frames", ((16, 19, 60, 106),)),
    ),
}  # fmt: skip
"""All but Flux have the blocks of one kind; Flux and HunyuanVideo have one of two streams and two of one, as theirs."""
