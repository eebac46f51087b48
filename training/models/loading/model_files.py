"""The files of a recognised model. Its parts are read (or downloaded) only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from snoopi_core.formats.checkpoint import CheckpointError, OneStepRecipe, Schedule
from training.models.families import FamilyName
from training.models.text_pair import TextEncoderPair

SUPPORTED = "Supported are Stable Diffusion 1.x, 2.x and XL, and PixArt-alpha at 512 px"
TextEncoder = tuple[PreTrainedModel | TextEncoderPair, PreTrainedTokenizerBase | tuple[CLIPTokenizer, ...]]
"""A text encoder and its tokenizer; two of each for SDXL."""

# Settings of a UNet's config that add inputs, and the models that have them.
_EXTRA_INPUTS = {
    "class_embed_type": "a model with more inputs than a prompt",
    "encoder_hid_dim": "a model with another text encoder",
    "time_cond_proj_dim": "a model that takes its guidance scale as an input, such as an LCM",
}


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Readers for each part of a model; `read_text_encoder` and `read_vae` are None for parts that it lacks."""

    family: FamilyName
    read_network: Callable[[], nn.Module]
    read_text_encoder: Callable[[torch.dtype], TextEncoder] | None
    read_vae: Callable[[], AutoencoderKL] | None
    schedule: Schedule
    prediction_type: str
    recipe: OneStepRecipe | None = None
    notes: str = ""


def check_supported(family: str, config: Mapping[str, Any], pipeline: str = "") -> None:
    """Refuse networks that have the right class but belong to an unsupported model.

    Args:
        config: the network's.
        pipeline: class in `model_index.json`, if there is one; only this distinguishes PixArt-Sigma from PixArt-alpha.

    Raises:
        ValueError: the model is not supported; the message names it.
    """
    if family in ("unet", "sdxl"):
        if config.get("addition_embed_type") not in (None, "text_time"):
            raise ValueError(f"its UNet has addition_embed_type {config['addition_embed_type']!r}. {SUPPORTED}")
        extra = next((key for key in _EXTRA_INPUTS if config.get(key) is not None), None)
        if extra is not None:
            raise ValueError(f"it is {_EXTRA_INPUTS[extra]} ({extra} = {config[extra]!r}). {SUPPORTED}")
        if (got := config.get("in_channels", 4)) != (out := config.get("out_channels", 4)):
            raise ValueError(
                f"it has {got} input channels and {out} output channels, like models for inpainting. {SUPPORTED}"
            )
    elif "Sigma" in pipeline:
        raise ValueError(f"it is PixArt-Sigma, which has other latents and another prompt length. {SUPPORTED}")
    else:
        sizes = config.get("use_additional_conditions")
        if config.get("sample_size", 128) == 128 if sizes is None else sizes:
            raise ValueError(f"it also takes the image size as an input, like PixArt at 1024 px. {SUPPORTED}")


def unet_family(config: Mapping[str, Any]) -> Literal["unet", "sdxl"]:
    """The family of a UNet, by its config: SDXL's also takes the pooled embedding and sizes."""
    return "sdxl" if config.get("addition_embed_type") == "text_time" else "unet"


@contextmanager
def errors_naming(name: str) -> Iterator[None]:
    """Prefix errors about the contents of a file or folder with its name."""
    try:
        yield
    except CheckpointError:
        raise  # already names its file
    except LookupError as error:
        raise ValueError(f"{name}: missing {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
