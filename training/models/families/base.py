"""What the trainer must know of a family of networks. One file beside this one for each.

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
    """One family. `name` is the checkpoint contract's."""

    name: Literal["unet", "pixart"]

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        """The network's prediction, (B, C, h, w), for x_t (B, C, h, w), timesteps t (B,) and B prompts."""

    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        """Embeddings as this family's pipeline in diffusers makes them, on the encoder's device."""

    def count_tokens(self, tokenizer: Any, prompts: list[str]) -> list[int]:
        """Tokens of each prompt, with its marks, before anything is cut."""

    def max_tokens(self, tokenizer: Any) -> int:
        """S: what is longer is cut."""

    def check(self, network: nn.Module, text_width: int | None, latent_size: int) -> None:
        """Raises ValueError for a network of this family that the trainer, or the host afterwards, could not use."""

    def to_single_file(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> StateDict:
        """Diffusers weights under their single-file names."""
