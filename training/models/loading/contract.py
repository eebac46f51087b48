"""Files that our exporter wrote (snoopi_core.formats.checkpoint); their header describes them completely."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from snoopi_core.formats.checkpoint import Metadata, read_parts
from snoopi_core.formats.joined_layouts import from_joined_single_file, pixart_location
from snoopi_core.formats.layouts import from_single_file, text_encoder_rename, unet_rename, vae_rename
from snoopi_core.formats.tensor_file import TensorFile
from training.models.clip_tokenizer import clip_tokenizer
from training.models.loading.meta_device import build_module
from training.models.loading.model_files import ModelFiles, TextEncoder


def open_contract(file: TensorFile, metadata: Metadata) -> ModelFiles:
    """The model in an exported file.

    Raises:
        CheckpointError: it has weights that its metadata does not describe.
    """
    parts = read_parts(file, metadata)  # memory-mapped, not read yet

    def read_network() -> nn.Module:
        if metadata.family == "pixart":
            return build_module(
                lambda: PixArtTransformer2DModel.from_config(metadata.unet),
                lambda module: from_joined_single_file(parts.unet, module.state_dict(), pixart_location),
            )
        return build_module(
            lambda: UNet2DConditionModel.from_config(metadata.unet),
            lambda module: from_single_file(parts.unet, module.state_dict(), unet_rename(module.config)),
        )

    def read_text_encoder(dtype: torch.dtype) -> TextEncoder:
        encoder = build_module(
            lambda: CLIPTextModel(CLIPTextConfig.from_dict(metadata.text_encoder)),
            lambda module: from_single_file(parts.text_encoder, module.state_dict(), text_encoder_rename),
        )
        return encoder, clip_tokenizer(clip_tokenizer().convert_ids_to_tokens(metadata.pad_token_id))

    def read_vae() -> AutoencoderKL:
        return build_module(
            lambda: AutoencoderKL.from_config(metadata.vae),
            lambda module: from_single_file(parts.vae, module.state_dict(), vae_rename(module.config)),
        )

    return ModelFiles(
        family=metadata.family,
        read_network=read_network,
        read_text_encoder=None if metadata.text_encoder is None else read_text_encoder,
        read_vae=None if metadata.vae is None else read_vae,
        schedule=metadata.schedule,
        prediction_type=metadata.prediction_type,
        recipe=metadata.recipe,
    )
