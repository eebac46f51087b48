"""PixArt-alpha at 512 px: a transformer with cross-attention to T5 embeddings, whose padding is masked.

Its network returns 8 channels: eps, and a variance that is not used (SNOOPI, arXiv 2412.02687, Section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.formats.layouts import StateDict
from training.models.text_embeddings import TextEmbeddings

_MAX_TOKENS = 120  # of PixArt-alpha; T5's tokenizer has 512


class PixArt:
    """Implements `Family`."""

    name: Literal["pixart"] = "pixart"

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        output = network(
            x_t,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},  # only the 1024 px model has them
        ).sample
        return output[:, : x_t.shape[1]]

    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        tokens = tokenizer(
            _lowercase(prompts), padding="max_length", max_length=_MAX_TOKENS, truncation=True, return_tensors="pt"
        ).to(text_encoder.device)
        states = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        return TextEmbeddings(states=states, mask=tokens.attention_mask.bool())

    def count_tokens(self, tokenizer: Any, prompts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(_lowercase(prompts), truncation=False, verbose=False).input_ids]

    def max_tokens(self, tokenizer: Any) -> int:
        return _MAX_TOKENS

    def check(self, network: nn.Module, text_width: int | None, latent_size: int) -> None:
        config = network.config
        if network.use_additional_conditions:
            raise ValueError(
                "the teacher also takes the image size as an input (PixArt at 1024 px); supported: PixArt at 512 px"
            )
        if text_width is not None and config.caption_channels != text_width:
            raise ValueError(f"the text encoder has width {text_width}, the network expects {config.caption_channels}")
        if latent_size % config.patch_size:
            raise ValueError(f"loop.latent_size is {latent_size}, expected a multiple of {config.patch_size}")

    def to_single_file(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> StateDict:
        return pixart_to_single_file(weights)


def _lowercase(prompts: list[str]) -> list[str]:
    """PixArt was trained on lowercase captions, and its pipeline converts prompts."""
    return [prompt.lower().strip() for prompt in prompts]
