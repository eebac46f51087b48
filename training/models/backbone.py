"""A text-to-image model made of diffusers modules, as the trainer and the evaluation use it.

Dimensions: B images, C latent channels, h x w latent size, S text tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import nn

from snoopi_core.formats.checkpoint import OneStepRecipe, Schedule
from training.models.families import FAMILIES, Family
from training.models.text_cache import TextCache
from training.models.text_embeddings import TextEmbeddings


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The parts of a model, in evaluation mode, without gradients.

    network is a UNet2DConditionModel or a PixArtTransformer2DModel, depending on the family. source is the path or hub
    id that it was loaded from. text_encoder and tokenizer may be None if text_cache holds the text embeddings.
    """

    network: nn.Module
    vae: AutoencoderKL
    schedule: Schedule
    prediction_type: str
    source: str
    family: Family = FAMILIES["unet"]
    text_encoder: nn.Module | None = None
    tokenizer: Any = None
    recipe: OneStepRecipe | None = None  # from a student's file
    notes: str = ""  # of the file's provenance, such as whose art it was trained on; its students keep them
    text_cache: TextCache | None = None

    def alphas_cumprod(self) -> torch.Tensor:
        """alpha_bar_t = alpha_t^2, shape (num_train_timesteps,), fp32: half precision is off by 100 % at t = 0."""
        return DDPMScheduler(**self.schedule.model_dump(), clip_sample=False).alphas_cumprod.float()

    @property
    def latent_channels(self) -> int:
        return self.network.config.in_channels

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Backbone:
        """Move all parts to `device`, and network and VAE to `dtype`. CLIP stays in fp32, T5 as it was loaded."""
        for module in (self.network, self.vae):
            nn.Module.to(module, device, dtype)  # diffusers' own method warns about an empty list
        if self.text_encoder is not None:
            self.text_encoder.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> TextEmbeddings:
        """Text embeddings, fp32, on the network's device; prompts are cut at `max_tokens`.

        They come from the text cache if there is one. It rounds CLIP's to bf16; T5's are bf16 anyway.

        Raises:
            ValueError: there is neither a text encoder nor a text cache with all of the prompts.
        """
        if self.text_cache is not None:
            text = self.text_cache.lookup(prompts, None if self.text_encoder is None else self._encode)
        else:
            text = self._encode(prompts)
        return text.to(self.network.device, torch.float32)

    def _encode(self, prompts: list[str]) -> TextEmbeddings:
        if self.text_encoder is None:
            raise ValueError(f"{self.source} has no text encoder; name one with teacher.text_encoder")
        return self.family.encode(self.text_encoder, self.tokenizer, prompts)

    @property
    def max_tokens(self) -> int:
        """S; longer prompts are cut."""
        return self.family.max_tokens(self.tokenizer)

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """Number of tokens of each prompt before it is cut, special tokens included."""
        if self.tokenizer is None and self.text_cache is not None:
            return self.text_cache.count_tokens(prompts)
        return self.family.count_tokens(self.tokenizer, prompts)

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        """Prediction (B, C, h, w) of `network`, the backbone's own or a student with the same config."""
        return self.family.call(network, x_t, t, text)

    def decode(self, x0: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1], (B, 3, 8h, 8w) fp32, of latents x0 (B, C, h, w) in the network's scale; with gradients."""
        return decode_latents(self.vae, x0)


def decode_latents(vae: nn.Module, x0: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1], (B, 3, 8h, 8w), at least fp32, by an AutoencoderKL or AutoencoderTiny; differentiable."""
    images = vae.decode(x0.to(vae.dtype) / vae.config.scaling_factor).sample
    return (images.to(torch.promote_types(images.dtype, torch.float32)) / 2 + 0.5).clamp(0, 1)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of the names and values of a network's weights, in hex."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
