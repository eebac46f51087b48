"""Build modules from configs and weights, without memory for initial weights; or from configs alone, to be described.

Weights in single files have other names than in diffusers and transformers, and are renamed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel

from snoopi_core.formats.joined_layouts import from_joined_single_file, open_clip_location, pixart_location
from snoopi_core.formats.layouts import StateDict, from_single_file, text_encoder_rename, unet_rename, vae_rename

_WITHOUT_WEIGHTS: ContextVar[bool] = ContextVar("without_weights", default=False)
T5_IS_NEEDED: ContextVar[bool] = ContextVar("t5_is_needed", default=True)


@contextmanager
def without_weights(*, t5_is_needed: bool = True) -> Iterator[None]:
    """Inside this context models are built from their configs alone, on the meta device; no weight is read.

    Args:
        t5_is_needed: whether the weights files of T5 must be there.
    """
    tokens = _WITHOUT_WEIGHTS.set(True), T5_IS_NEEDED.set(t5_is_needed)
    try:
        yield
    finally:
        _WITHOUT_WEIGHTS.reset(tokens[0])
        T5_IS_NEEDED.reset(tokens[1])


def build_on_meta(make: Callable[[], nn.Module]) -> nn.Module | None:
    """The module that `make` returns, on the meta device, inside `without_weights`; otherwise None."""
    if not _WITHOUT_WEIGHTS.get():
        return None
    with torch.device("meta"):  # not init_empty_weights, which would separate tied weights
        return make().to("meta")  # also moves buffers that were created on another device


def build_network(family: str, config: Mapping[str, Any], weights: StateDict) -> nn.Module:
    """A UNet2DConditionModel or PixArtTransformer2DModel, in fp32."""
    if family == "pixart":
        return _build(
            lambda: PixArtTransformer2DModel.from_config(config),
            lambda module: from_joined_single_file(weights, module.state_dict(), pixart_location),
        )
    return _build(
        lambda: UNet2DConditionModel.from_config(config),
        lambda module: from_single_file(weights, module.state_dict(), unet_rename(module.config)),
    )


def build_vae(config: Mapping[str, Any], weights: StateDict) -> AutoencoderKL:
    """A VAE, in fp32."""
    return _build(
        lambda: AutoencoderKL.from_config(config),
        lambda module: from_single_file(weights, module.state_dict(), vae_rename(module.config)),
    )


def build_clip(
    config: dict[str, Any], weights: StateDict, *, open_clip: bool = False, projected: bool = False
) -> PreTrainedModel:
    """A text encoder, in fp32.

    Args:
        open_clip: whether the weights have OpenCLIP's names.
        projected: whether it has a projection, as SDXL's second one; all configs have a `projection_dim`.
    """
    read, names = (
        (from_joined_single_file, open_clip_location) if open_clip else (from_single_file, text_encoder_rename)
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return _build(
        lambda: kind(CLIPTextConfig.from_dict(config)),
        lambda module: read(weights, module.state_dict(), names),
    )


def _build(make: Callable[[], nn.Module], weights: Callable[[nn.Module], Mapping[str, torch.Tensor]]) -> Any:
    """The module that `make` returns, with the weights that `weights` returns for it under the module's names."""
    if (module := build_on_meta(make)) is not None:
        return module.float()
    with init_empty_weights():  # of the parameters; buffers, which are in no file, are kept
        module = make()
    module.load_state_dict(weights(module), assign=True)
    return module.float()
