"""Files of our own (snoopi_core.formats.checkpoint): everything is said in their header."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from snoopi_core.formats.checkpoint import Metadata, read_parts
from snoopi_core.formats.joined_layouts import pixart_from_single_file
from snoopi_core.formats.layouts import from_single_file, text_encoder_rename, unet_rename, vae_rename
from snoopi_core.formats.tensor_file import TensorFile
from training.models.clip_tokenizer import clip_tokenizer
from training.models.loading.source import Source, Text, build


def open_contract(file: TensorFile, metadata: Metadata) -> Source:
    """A file of the exporter's.

    Raises:
        CheckpointError: weights that its metadata do not announce.
    """
    parts = read_parts(file, metadata)  # mapped into memory, not read

    def network() -> nn.Module:
        if metadata.family == "pixart":
            return build(
                lambda: PixArtTransformer2DModel.from_config(metadata.unet),
                lambda module: pixart_from_single_file(parts.unet, module.state_dict()),
            )
        return build(
            lambda: UNet2DConditionModel.from_config(metadata.unet),
            lambda module: from_single_file(parts.unet, module.state_dict(), unet_rename(module.config)),
        )

    def text(dtype: torch.dtype) -> Text:
        encoder = build(
            lambda: CLIPTextModel(CLIPTextConfig.from_dict(metadata.text_encoder)),
            lambda module: from_single_file(parts.text_encoder, module.state_dict(), text_encoder_rename),
        )
        return encoder, clip_tokenizer(clip_tokenizer().convert_ids_to_tokens(metadata.pad_token_id))

    def vae() -> AutoencoderKL:
        return build(
            lambda: AutoencoderKL.from_config(metadata.vae),
            lambda module: from_single_file(parts.vae, module.state_dict(), vae_rename(module.config)),
        )

    return Source(
        family=metadata.family,
        network=network,
        text=None if metadata.text_encoder is None else text,
        vae=None if metadata.vae is None else vae,
        schedule=metadata.schedule,
        prediction_type=metadata.prediction_type,
        recipe=metadata.recipe,
    )
