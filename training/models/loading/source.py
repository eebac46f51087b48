"""A model that has been found and recognised. Its parts are read, or downloaded, when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from snoopi_core.formats.checkpoint import CheckpointError, OneStepRecipe, Schedule

SUPPORTED = "Supported are Stable Diffusion 1.x and 2.x, and PixArt-alpha at 512 px"
Text = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the parts of a model come from; `text` and `vae` are None for parts that are not there."""

    family: Literal["unet", "pixart"]
    network: Callable[[], nn.Module]
    text: Callable[[torch.dtype], Text] | None
    vae: Callable[[], AutoencoderKL] | None
    schedule: Schedule
    prediction_type: str
    recipe: OneStepRecipe | None = None


def check_supported(family: str, config: Mapping[str, Any], pipeline: str = "") -> None:
    """Refuse networks of the right class that are another model's.

    Args:
        config: of the network.
        pipeline: class in `model_index.json`, where there is one; only that tells PixArt-Sigma from PixArt-alpha.

    Raises:
        ValueError: it is not supported; says what it is.
    """
    if family == "unet":
        extra = next((key for key in _EXTRA_INPUTS if config.get(key) is not None), None)
        if extra is not None:
            raise ValueError(f"it is {_EXTRA_INPUTS[extra]} ({extra} = {config[extra]!r}). {SUPPORTED}")
        if (got := config.get("in_channels", 4)) != (out := config.get("out_channels", 4)):
            raise ValueError(f"it takes {got} channels and gives {out}, as models for inpainting do. {SUPPORTED}")
    elif "Sigma" in pipeline:
        raise ValueError(f"it is PixArt-Sigma, whose latents and prompts are others. {SUPPORTED}")
    else:
        sizes = config.get("use_additional_conditions")
        if config.get("sample_size", 128) == 128 if sizes is None else sizes:
            raise ValueError(f"it also takes the picture's size, as PixArt at 1024 px does. {SUPPORTED}")


_EXTRA_INPUTS = {
    "addition_embed_type": "a model with more inputs than a prompt, such as Stable Diffusion XL",
    "class_embed_type": "a model with more inputs than a prompt",
    "encoder_hid_dim": "a model with another text encoder",
    "time_cond_proj_dim": "a model that takes its guidance scale as an input, such as an LCM",
}


_DESCRIBED: ContextVar[bool] = ContextVar("without_weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Inside, models are told by their descriptions alone: no weight is read, all modules are on the meta device."""
    token = _DESCRIBED.set(True)
    try:
        yield
    finally:
        _DESCRIBED.reset(token)


def described(make: Callable[[], nn.Module]) -> nn.Module | None:
    """The module on the meta device `without_weights`, else None."""
    if not _DESCRIBED.get():
        return None
    with torch.device("meta"):  # not init_empty_weights: that would part weights that are tied
        return make().to("meta")  # and buffers that were made elsewhere


def build(make: Callable[[], nn.Module], weights: Callable[[nn.Module], Mapping[str, torch.Tensor]]) -> nn.Module:
    """A module that holds given weights, in fp32, without having held others before.

    Args:
        make: the module; its parameters stay without memory, its buffers, which no file holds, do not.
        weights: of the module that it gets, under that module's names.
    """
    if (module := described(make)) is not None:
        return module.float()
    with init_empty_weights():
        module = make()
    module.load_state_dict(weights(module), assign=True)
    return module.float()


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put a file's or a folder's name in front of what is wrong with its contents."""
    try:
        yield
    except CheckpointError:
        raise  # names its file itself
    except LookupError as error:
        raise ValueError(f"{name}: it lacks {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
