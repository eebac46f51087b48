"""Models that NASA does not steer: the host's objects, no weights. Older hosts do not have them."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.supported_models as supported
import torch

# By the name of the host's config class, which must be in the error message.
REFUSED: dict[str, dict[str, Any]] = {
    "ErnieImage": {
        "image_model": "ernie", "hidden_size": 64, "num_attention_heads": 4, "num_layers": 1, "ffn_hidden_size": 64,
        "in_channels": 16, "out_channels": 16, "text_in_dim": 48, "rope_axes_dim": (4, 6, 6),
    },
    "PiD": {
        "image_model": "pid", "num_groups": 4, "hidden_size": 64, "pixel_hidden_size": 8, "pixel_attn_hidden_size": 32,
        "pixel_num_groups": 4, "patch_depth": 1, "pixel_depth": 1, "patch_size": 4, "txt_embed_dim": 48,
    },
    # A UNet with a picture in the text's place.
    "Stable_Zero123": {
        "in_channels": 8, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1], "channel_mult": [1],
        "transformer_depth": [1], "transformer_depth_output": [1, 1], "transformer_depth_middle": 1,
        "context_dim": 768, "num_heads": 4, "num_head_channels": -1, "use_spatial_transformer": True,
        "image_size": 32, "legacy": False, "use_linear_in_transformer": False, "adm_in_channels": None,
    },
}  # fmt: skip
REFUSED = {name: arguments for name, arguments in REFUSED.items() if hasattr(supported, name)}
_WEIGHTS = {"cc_projection.weight": torch.empty(768, 772), "cc_projection.bias": torch.empty(768)}


@torch.no_grad()
def refused_model(name: str) -> comfy.model_patcher.ModelPatcher:
    """The model on the meta device, where it takes no memory."""
    config = getattr(supported, name)(REFUSED[name])
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(dict(_WEIGHTS), "", device=torch.device("meta"))
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
