"""Families of networks that can be distilled: how each is called, and its layout in a single file.

Dimensions: B batch rows, C latent channels, h x w latent size, S text tokens, E text width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from snoopi_core.formats.architecture_pixart import MIN_LATENT
from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.formats.layouts import StateDict, to_single_file, unet_rename
from training.models.clip_tokenizer import MAX_TOKENS
from training.models.text_embeddings import TextEmbeddings

PIXELS = 8  # of an image for each latent pixel, along one side
SIZES = 6  # height and width, corner of the crop, and height and width again: all that SDXL is told of the image


FamilyName = Literal["unet", "sdxl", "pixart"]


class Family(ABC):
    """A family of networks.

    file_family: its name in exported files. leaves_out_text: whether a run with a text cache loads no text encoder, and
    an export holds none, since it is large.
    """

    name: FamilyName
    file_family: Literal["unet", "pixart"]
    leaves_out_text = False

    @abstractmethod
    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        """The network's prediction, (B, C, h, w), for x_t (B, C, h, w), timesteps t (B,) and B prompts."""

    @abstractmethod
    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        """Embeddings as in this family's diffusers pipeline, on the encoder's device."""

    def count_tokens(self, tokenizer: Any, prompts: list[str]) -> list[int]:
        """Number of tokens of each prompt before it is cut, special tokens included."""
        return [len(ids) for ids in tokenizer(self.normalize(prompts), truncation=False, verbose=False).input_ids]

    def max_tokens(self, tokenizer: Any) -> int:
        """S; longer prompts are cut."""
        return tokenizer.model_max_length

    @abstractmethod
    def sizes(self, config: Any) -> tuple[int, int]:
        """(E, the number that the latents' sides must be a multiple of), by a network's config."""

    def check(self, network: nn.Module, text_width: int | None, latent_size: int) -> None:
        """Check that the trainer, and later ComfyUI, can use this network.

        Args:
            text_width: E of the text encoder, if known.
            latent_size: h = w.

        Raises:
            ValueError: they cannot.
        """
        expected, step = self.sizes(network.config)
        if text_width is not None and expected != text_width:
            raise ValueError(f"the text encoder has width {text_width}, the network expects {expected}")
        if latent_size % step:
            raise ValueError(f"loop.latent_size is {latent_size}, expected a multiple of {step}")

    @abstractmethod
    def to_single_file(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> StateDict:
        """Weights under diffusers' names, renamed as in a single file."""

    def pooled_width(self, config: Any) -> int | None:
        """P, by a network's config; None if the family takes no pooled embedding."""
        return None

    def normalize(self, prompts: list[str]) -> list[str]:
        """Prompts as this family's pipeline gives them to the tokenizer."""
        return prompts

    def tokenize(self, tokenizer: Any, prompts: list[str]) -> Any:
        """Token ids and attention mask, (B, S) each."""
        return tokenizer(
            self.normalize(prompts),
            padding="max_length",
            max_length=self.max_tokens(tokenizer),
            truncation=True,
            return_tensors="pt",
        )


class UNet(Family):
    """Stable Diffusion 1.x and 2.x: a UNet with cross-attention to CLIP embeddings, without a mask."""

    name = "unet"
    file_family = "unet"

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        return network(x_t, t, text.states).sample

    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        ids = self.tokenize(tokenizer, prompts).input_ids
        return TextEmbeddings(states=text_encoder(ids.to(text_encoder.device)).last_hidden_state.float())

    def sizes(self, config: Any) -> tuple[int, int]:
        return config.cross_attention_dim, 2 ** (len(config.block_out_channels) - 1)

    def to_single_file(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> StateDict:
        return to_single_file(weights, unet_rename(config))


class SDXL(UNet):
    """Stable Diffusion XL: a UNet that also takes the pooled embedding, and the sizes of the image.

    Sizes are those that ComfyUI gives by default: the whole image, not cropped. The null prompt is the encoded empty
    prompt, as for the other families and in ComfyUI; diffusers' pipeline takes zeros if it gets no negative prompt.
    """

    name = "sdxl"
    leaves_out_text = True

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        size = [PIXELS * side for side in x_t.shape[-2:]]
        time_ids = torch.tensor([*size, 0, 0, *size], dtype=torch.float32, device=x_t.device).expand(len(x_t), -1)
        added = {"text_embeds": text.pooled, "time_ids": time_ids}
        return network(x_t, t, text.states, added_cond_kwargs=added).sample

    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        states, pooled = text_encoder(*(self.tokenize(one, prompts).input_ids for one in tokenizer))
        return TextEmbeddings(states=states.float(), pooled=pooled.float())

    def count_tokens(self, tokenizer: Any, prompts: list[str]) -> list[int]:
        return super().count_tokens(tokenizer[0], prompts)

    def max_tokens(self, tokenizer: Any) -> int:
        return MAX_TOKENS

    def pooled_width(self, config: Any) -> int:
        """P, by a network's config."""
        return config.projection_class_embeddings_input_dim - SIZES * config.addition_time_embed_dim


class PixArt(Family):
    """PixArt-alpha at 512 px: a transformer with cross-attention to T5 embeddings, whose padding is masked."""

    name = "pixart"
    file_family = "pixart"
    leaves_out_text = True

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        output = network(
            x_t,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},  # only the 1024 px model has them
        ).sample
        # eps, and a variance that is not used (SNOOPI, arXiv 2412.02687, Section 3)
        return output[:, : x_t.shape[1]]

    def encode(self, text_encoder: nn.Module, tokenizer: Any, prompts: list[str]) -> TextEmbeddings:
        tokens = self.tokenize(tokenizer, prompts).to(text_encoder.device)
        states = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        return TextEmbeddings(states=states, mask=tokens.attention_mask.bool())

    def max_tokens(self, tokenizer: Any) -> int:
        return 120  # T5's tokenizer has 512

    def sizes(self, config: Any) -> tuple[int, int]:
        return config.caption_channels, config.patch_size

    def check(self, network: nn.Module, text_width: int | None, latent_size: int) -> None:
        super().check(network, text_width, latent_size)
        if latent_size < MIN_LATENT:
            step = self.sizes(network.config)[1]
            raise ValueError(
                f"loop.latent_size is {latent_size}, but ComfyUI cannot run PixArt on latents below {MIN_LATENT}; give "
                f"at least loop.latent_size={-(-MIN_LATENT // step) * step} (64 is 512 px)"
            )

    def to_single_file(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> StateDict:
        return pixart_to_single_file(weights)

    def normalize(self, prompts: list[str]) -> list[str]:
        """In lower case, as the captions that PixArt was trained on."""
        return [prompt.lower().strip() for prompt in prompts]


FAMILIES: dict[str, Family] = {family.name: family for family in (UNet(), SDXL(), PixArt())}
