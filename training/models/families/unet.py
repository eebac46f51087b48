"""Stable Diffusion 1.x and 2.x: a UNet with cross-attention to CLIP embeddings, without a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from snoopi_core.formats.layouts import StateDict, to_single_file, unet_rename
from training.models.text_embeddings import TextEmbeddings


class UNet:
    """Implements `Family`."""

    name: Literal["unet"] = "unet"

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        return network(x_t, t, text.states).sample

    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        ids = tokenizer(
            prompts, padding="max_length", max_length=self.max_tokens(tokenizer), truncation=True, return_tensors="pt"
        ).input_ids
        return TextEmbeddings(states=text_encoder(ids.to(text_encoder.device)).last_hidden_state.float())

    def count_tokens(self, tokenizer: Any, prompts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(prompts, truncation=False, verbose=False).input_ids]

    def max_tokens(self, tokenizer: Any) -> int:
        return tokenizer.model_max_length

    def check(self, network: nn.Module, text_width: int | None, latent_size: int) -> None:
        config = network.config
        if config.addition_embed_type is not None:
            raise ValueError(
                f"the teacher also takes {config.addition_embed_type} as an input (SDXL), which is not supported"
            )
        if text_width is not None and config.cross_attention_dim != text_width:
            raise ValueError(f"the text encoder has width {text_width}, the UNet expects {config.cross_attention_dim}")
        step = 2 ** (len(config.block_out_channels) - 1)
        if latent_size % step:
            raise ValueError(f"loop.latent_size is {latent_size}, expected a multiple of {step}")

    def to_single_file(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> StateDict:
        return to_single_file(weights, unet_rename(config))
