"""Tiny models of the real classes, with random weights, for fast tests of the trainer and the loader."""

from __future__ import annotations

import functools
import string
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from snoopi_core.formats.checkpoint import Schedule
from training.models.backbone import Backbone
from training.models.clip_tokenizer import clip_tokenizer
from training.models.families import FAMILIES
from training.models.text_pair import TextEncoderPair

WIDTH = 32  # the host's group norms have 32 groups, so every channel count is a multiple of 32
STOCK_SCALE, SDXL_SCALE = 0.18215, 0.13025
POOLED = 48  # width of SDXL's pooled embedding here; unlike any other width, so mix-ups raise errors
PIXART_SCHEDULE = Schedule(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)


def tiny_backbone(
    prediction_type: str = "epsilon",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    latent_scale: float = 0.7,
) -> Backbone:
    """A model in Stable Diffusion 1.5's form, about 2 million parameters, nearly all of them CLIP's vocabulary.

    latent_scale: with Stable Diffusion's, STOCK_SCALE, an export is three times as fast, without preview colours.
    """

    def networks() -> dict[str, Any]:
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(WIDTH, 2 * WIDTH),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
        )
        vae = tiny_vae(latent_scale)
        return {"network": unet, "vae": vae, "text_encoder": _clip_text_encoder(layers=2, pad_token_id=49407)}

    return Backbone(
        **_frozen(networks, seed, dtype),
        tokenizer=clip_tokenizer(),
        schedule=Schedule(),
        prediction_type=prediction_type,
        source="tiny",
    )


def tiny_sd21_backbone(
    prediction_type: str = "epsilon", *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Backbone:
    """Stable Diffusion 2.1's form: linear projections, heads of one width, a text encoder as OpenCLIP's, pad id 0."""

    def networks() -> dict[str, Any]:
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(WIDTH, 2 * WIDTH),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
        )
        text_encoder = _clip_text_encoder(layers=3, pad_token_id=1, hidden_act="gelu")
        return {"network": unet, "vae": tiny_vae(), "text_encoder": text_encoder}

    return Backbone(
        **_frozen(networks, seed, dtype),
        tokenizer=clip_tokenizer("!"),
        family=FAMILIES["unet"],
        schedule=Schedule(),
        prediction_type=prediction_type,
        source="tiny SD2.1",
    )


def tiny_sdxl_backbone(
    prediction_type: str = "epsilon", *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Backbone:
    """SDXL's form: no attention at full resolution, deeper transformers, two text encoders, pooled text and sizes."""

    def networks() -> dict[str, Any]:
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(WIDTH, 2 * WIDTH),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=2 * WIDTH,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=POOLED + 6 * 256,
        )
        second = _clip_text_encoder(
            layers=3, kind=CLIPTextModelWithProjection, pad_token_id=1, hidden_act="gelu", projection_dim=POOLED
        )
        pair = TextEncoderPair(_clip_text_encoder(layers=2, pad_token_id=49407), second)
        return {"network": unet, "vae": tiny_vae(SDXL_SCALE), "text_encoder": pair}

    return Backbone(
        **_frozen(networks, seed, dtype),
        tokenizer=(clip_tokenizer(), clip_tokenizer("!")),
        family=FAMILIES["sdxl"],
        schedule=Schedule(),
        prediction_type=prediction_type,
        source="tiny SDXL",
    )


def tiny_pixart_backbone(
    prediction_type: str = "epsilon", *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Backbone:
    """PixArt-alpha 512's form: eight output channels, no sizes, T5 as text encoder, linear betas."""

    def networks() -> dict[str, Any]:
        transformer = PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=2,
            cross_attention_dim=24,
            caption_channels=WIDTH,
            out_channels=8,
            sample_size=64,  # the host divides by zero below 33
            use_additional_conditions=False,
        )
        torch.nn.init.normal_(transformer.scale_shift_table, std=0.2)
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tiny_t5_tokenizer()),
                d_model=WIDTH,
                d_kv=WIDTH // 2,
                d_ff=2 * WIDTH,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
            )
        )
        return {"network": transformer, "vae": tiny_vae(), "text_encoder": text_encoder}

    return Backbone(
        **_frozen(networks, seed, dtype),
        tokenizer=tiny_t5_tokenizer(),
        family=FAMILIES["pixart"],
        schedule=PIXART_SCHEDULE,
        prediction_type=prediction_type,
        source="tiny PixArt",
    )


@functools.cache
def tiny_t5_tokenizer() -> T5Tokenizer:
    """T5's kind of tokenizer, with a vocabulary of letters."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = "\N{LOWER ONE EIGHTH BLOCK}" + string.ascii_letters + string.digits + string.punctuation
    return T5Tokenizer(vocab=[*marks, *((letter, -3.0) for letter in letters)], extra_ids=0, model_max_length=512)


def tiny_vae(scaling_factor: float = STOCK_SCALE) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(WIDTH,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=scaling_factor,
    )


def _clip_text_encoder(layers: int, kind: type[CLIPTextModel] = CLIPTextModel, **config: Any) -> CLIPTextModel:
    return kind(
        CLIPTextConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=2,
            bos_token_id=49406,
            eos_token_id=49407,
            **config,
        )
    )


def _frozen(networks: Callable[[], dict[str, Any]], seed: int, dtype: torch.dtype) -> dict[str, Any]:
    """Random weights that depend only on the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules = networks()
    for module in modules.values():
        module.to(dtype).eval().requires_grad_(False)
    return modules
