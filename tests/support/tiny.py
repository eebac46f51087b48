"""Tiny models of the real classes, with random weights: what the trainer and the loader see, in milliseconds."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from snoopi_core.checkpoint import Schedule
from training.backbone import Backbone
from training.tokenizer import clip_tokenizer

WIDTH = 32  # the host's group norms have 32 groups, so every channel count is a multiple of 32


def tiny_backbone(prediction_type: str = "epsilon", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Backbone:
    """A model in Stable Diffusion 1.5's form, about 2 million parameters, nearly all of them CLIP's vocabulary."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(WIDTH, 2 * WIDTH),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
        )
        vae = AutoencoderKL(
            block_out_channels=(WIDTH,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            scaling_factor=0.7,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                bos_token_id=49406,
                eos_token_id=49407,
                pad_token_id=49407,
            )
        )
    for module in (unet, vae, text_encoder):
        module.to(dtype).eval().requires_grad_(False)
    return Backbone(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer(),
        schedule=Schedule(),
        prediction_type=prediction_type,
        source="tiny",
    )
