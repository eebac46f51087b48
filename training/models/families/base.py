"""The interface of a family of networks; each family has its own file beside this one.

Dimensions: B batch rows, C latent channels, h x w latent size, S text tokens, E text width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import nn

from snoopi_core.formats.layouts import StateDict
from training.models.text_embeddings import TextEmbeddings


class Family(Protocol):
    """A family of networks. `name` is its name in exported files."""

    name: Literal["unet", "pixart"]

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        """The network's prediction, (B, C, h, w), for x_t (B, C, h, w), timesteps t (B,) and B prompts."""

    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        """Embeddings as in this family's diffusers pipeline, on the encoder's device."""

    def count_tokens(self, tokenizer: Any, prompts: list[str]) -> list[int]:
        """Number of tokens of each prompt before it is cut, special tokens included."""

    def max_tokens(self, tokenizer: Any) -> int:
        """S; longer prompts are cut."""

    def check(self, network: nn.Module, text_width: int | None, latent_size: int) -> None:
        """Check that the trainer, and later ComfyUI, can use this network.

        Args:
            text_width: E of the text encoder, if known.
            latent_size: h = w.

        Raises:
            ValueError: they cannot.
        """

    def to_single_file(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> StateDict:
        """Weights under diffusers' names, renamed as in a single file."""
