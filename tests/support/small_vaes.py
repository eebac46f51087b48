"""Small copies of published VAEs, of the host's classes, from which the host's loaders read the sizes in the file."""

from __future__ import annotations

import json
from typing import Any

import comfy.ldm.lightricks.vae.audio_vae as audio_vae
import comfy.ldm.lightricks.vae.causal_video_autoencoder as video_vae
import comfy.ldm.modules.diffusionmodules.model as kl
import comfy.ldm.wan.vae as wan_vae
import torch
from small_copies import Weights

_KL = {
    "ch": 32, "out_ch": 3, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "in_channels": 3,
    "resolution": 256,
}  # fmt: skip
_SPECTRUM = {
    "double_z": True, "mel_bins": 64, "z_channels": 8, "resolution": 256, "downsample_time": False, "in_channels": 2,
    "out_ch": 2, "ch": 16, "ch_mult": [1, 2, 4], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    "mid_block_add_attention": False, "norm_type": "pixel", "causality_axis": "height",
}  # fmt: skip
LTX: dict[str, Any] = {
    "vae": {
        "dims": 3, "in_channels": 3, "out_channels": 3, "latent_channels": 128, "norm_layer": "pixel_norm",
        "patch_size": 4, "latent_log_var": "uniform", "causal_decoder": False, "timestep_conditioning": False,
        "encoder_base_channels": 16, "decoder_base_channels": 16,
        "encoder_blocks": [["res_x", {"num_layers": 1}], *[["compress_all_res", {"multiplier": 2}]] * 3],
        "decoder_blocks": [
            *[["compress_all", {"residual": True, "multiplier": 2}]] * 3,
            ["res_x", {"num_layers": 1, "inject_noise": False}],
        ],
    },
    "audio_vae": {
        "model": {"params": {"ddconfig": _SPECTRUM, "sampling_rate": 16000}},
        "preprocessing": {"stft": {"filter_length": 1024, "hop_length": 160}},
    },
    "vocoder": {"upsample_initial_channel": 64, "output_sample_rate": 24000, "upsample_rates": [6, 5, 2, 2, 2]},
}  # fmt: skip
"""The part of the metadata of LTX-2's file, from which the host makes both VAEs."""


def random_weights(module: torch.nn.Module) -> Weights:
    """Matrices and kernels keep the scale of what passes; norms are 1, statistics 0 and 1."""
    generator = torch.Generator().manual_seed(6)
    out = {}
    for key, weight in module.state_dict().items():
        if weight.ndim > 1 and "gamma" not in key:
            out[key] = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
        elif key.endswith(("weight", "gamma", "std-of-means")):
            out[key] = torch.ones(weight.shape)
        else:
            out[key] = torch.zeros(weight.shape)
    return out


def picture(channels: int, *, batch_norm: bool = False) -> Weights:
    """The decoder of Flux's (16 channels) or Flux 2's (32, and a batch norm) VAE; the templates never encode."""
    decoder = random_weights(kl.Decoder(**_KL, z_channels=channels))
    weights = {f"decoder.{key}": weight for key, weight in decoder.items()}
    if batch_norm:
        weights["post_quant_conv.weight"] = torch.eye(channels)[:, :, None, None]
        weights["post_quant_conv.bias"] = torch.zeros(channels)
        weights |= {"bn.running_mean": torch.zeros(4 * channels), "bn.running_var": torch.ones(4 * channels)}
        weights["bn.num_batches_tracked"] = torch.tensor(1)
    return weights


def wan() -> Weights:
    """The VAE of Wan 2.1, which Qwen-Image, Krea 2 and Anima have too."""
    return random_weights(
        wan_vae.WanVAE(
            dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], dropout=0.0,
            temperal_downsample=[False, True, True], image_channels=3, conv_out_channels=3,
        )
    )  # fmt: skip


def ltx() -> Weights:
    """Both VAEs and the vocoder under the keys of LTX-2's checkpoint."""
    video = random_weights(video_vae.VideoVAE(version=2, config=LTX["vae"]))
    audio = random_weights(audio_vae.AudioVAE({"config": json.dumps(LTX)}))
    weights = {f"vae.{key}": weight for key, weight in video.items()}
    return weights | {key.replace("autoencoder.", "audio_vae.", 1): weight for key, weight in audio.items()}
