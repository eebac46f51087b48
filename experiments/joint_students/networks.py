"""The two students: a two-stream and a single-stream network, both of ComfyUI's own classes.

Import after `host.start_host()`. Dimensions: B pictures, C x 8 x 8 latents, E width of the text states.
"""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_patcher
import comfy.supported_models as supported
import torch
from comfy.model_base import BaseModel

NAMES = ("two-stream", "single-stream")
_ROPE = [8, 12, 12]  # of a head's 32 numbers: text and time, height, width


def _config(name: str, channels: int, text: int, width: int, depth: int) -> tuple[type, dict[str, Any]]:
    """The host's configuration class, and the network's arguments."""
    if name == "two-stream":  # Flux without its single-stream blocks and without pooled text
        return supported.FluxSchnell, {
            "image_model": "flux", "in_channels": channels, "out_channels": channels, "vec_in_dim": None,
            "context_in_dim": text, "hidden_size": width, "mlp_ratio": 2.0, "num_heads": width // 32, "depth": depth,
            "depth_single_blocks": 0, "axes_dim": _ROPE, "theta": 10000, "patch_size": 1, "qkv_bias": True,
            "guidance_embed": False, "txt_ids_dims": [],
        }  # fmt: skip
    if name == "single-stream":
        return supported.Lumina2, {
            "image_model": "lumina2", "in_channels": channels, "dim": width, "n_layers": depth, "n_refiner_layers": 1,
            "n_heads": width // 32, "n_kv_heads": width // 32, "cap_feat_dim": text, "axes_dims": _ROPE,
            "axes_lens": [300, 32, 32], "qk_norm": True, "patch_size": 1, "multiple_of": 64,
            "ffn_dim_multiplier": 0.75,
        }  # fmt: skip
    raise ValueError(f"network {name!r} is not known; available: {', '.join(NAMES)}")


def new_model(name: str, *, channels: int, text: int, width: int = 64, depth: int = 4, seed: int = 0) -> BaseModel:
    """The host's model around a new network, fp32 on the CPU; a flow from noise at sigma 1 to x0 at 0, unshifted."""
    parent, arguments = _config(name, channels, text, width, depth)
    latents = type("Latents", (comfy.latent_formats.LatentFormat,), {"latent_channels": channels})
    own = {"latent_format": latents, "sampling_settings": {**parent.sampling_settings, "shift": 1.0}}
    config = type(parent.__name__, (parent,), own)(arguments)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    _initialise(model.diffusion_model, seed)
    return model


def as_patcher(model: BaseModel) -> comfy.model_patcher.ModelPatcher:
    """What the host's nodes pass on as MODEL."""
    device = torch.device("cpu")
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(model.eval(), load_device=device, offload_device=device)


@torch.no_grad()
def _initialise(network: torch.nn.Module, seed: int) -> None:
    """The host leaves weights empty. Modulation begins as none, with open gates; the result begins at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        is_modulation = "mod.lin" in name or "adaLN_modulation" in name
        if weight.ndim >= 2 and (is_modulation or "final_layer.linear" in name):
            weight.zero_()
        elif weight.ndim >= 2:
            weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
        else:
            weight.fill_(1.0 if name.endswith(("weight", "scale")) else 0.0)
            if is_modulation and "final_layer" not in name:
                # Flux: shift, scale, gate, twice; Lumina: scale, gate, twice.
                parts = 3 if "mod.lin" in name else 2
                weight.view(2, parts, -1)[:, -1] = 1.0
