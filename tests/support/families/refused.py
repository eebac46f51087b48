"""Models that NASA does not steer, most with one joint attention of text and image: the host's objects, no weights."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.supported_models as supported
import torch

_FLUX: dict[str, Any] = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 48, "hidden_size": 64, "mlp_ratio": 2.0,
    "num_heads": 4, "depth": 1, "depth_single_blocks": 1, "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2,
    "qkv_bias": True,
}  # fmt: skip
_LUMINA: dict[str, Any] = {
    "image_model": "lumina2", "in_channels": 16, "dim": 64, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 4,
    "n_kv_heads": 4, "cap_feat_dim": 48, "axes_dims": [4, 6, 6], "axes_lens": [32, 32, 32],
}  # fmt: skip

# By the name of the host's config class, which must be in the error message.
REFUSED: dict[str, dict[str, Any]] = {
    "SD3": {
        "in_channels": 16, "patch_size": 2, "depth": 1, "input_size": None, "adm_in_channels": 32, "num_patches": 64,
        "pos_embed_max_size": 8, "pos_embed_scaling_factor": None,
        "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 64}},
    },
    "Flux": {**_FLUX, "image_model": "flux", "guidance_embed": True, "txt_ids_dims": []},
    "Chroma": {
        **_FLUX, "image_model": "chroma", "in_dim": 16, "out_dim": 64, "hidden_dim": 64, "n_layers": 1,
        "txt_ids_dims": [],
    },
    "QwenImage": {
        "image_model": "qwen_image", "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 4,
        "joint_attention_dim": 48, "axes_dims_rope": (4, 6, 6),
    },
    "Lumina2": _LUMINA,
    "ZImage": {**_LUMINA, "z_image_modulation": True, "pad_tokens_multiple": 32},
    "HunyuanVideo": {
        **_FLUX, "image_model": "hunyuan_video", "patch_size": [1, 2, 2], "guidance_embed": True, "byt5": False,
        "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
    },
}  # fmt: skip


def refused_model(name: str) -> comfy.model_patcher.ModelPatcher:
    """The model on the meta device, where it takes no memory."""
    config = getattr(supported, name)(REFUSED[name])
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=torch.device("meta"))
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
