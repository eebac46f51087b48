"""Load models as backbones, from any supported format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.config import Teacher
from training.models.backbone import Backbone
from training.models.families import FAMILIES
from training.models.loading.find import find_folder, open_model
from training.models.loading.folder import read_text_encoder, read_vae
from training.models.loading.model_files import errors_naming
from training.models.loading.text_encoder_id import describe_encoder
from training.models.text_cache import TextCache


def load_teacher(section: Teacher, *, t5: torch.dtype | None = torch.bfloat16, text_cache: str = "") -> Backbone:
    """The teacher of a recipe; see `load_backbone`. With `text_cache`, the folder of a cache, T5 is not loaded.

    Raises:
        FileNotFoundError, ValueError: see `load_backbone` and `TextCache.open`.
    """
    t5 = None if text_cache else t5
    backbone = load_backbone(
        section.path, section.prediction_type, text_encoder=section.text_encoder, vae=section.vae, t5=t5
    )
    if not text_cache:
        return backbone
    cache = TextCache.open(Path(text_cache).expanduser(), describe_encoder(section, backbone))
    return replace(backbone, text_cache=cache)


def load_backbone(
    path: str,
    prediction_type: str = "auto",
    *,
    text_encoder: str = "",
    vae: str = "",
    t5: torch.dtype | None = torch.bfloat16,
) -> Backbone:
    """Load a model. `prediction_type` overrides what its files say; for the rest see `load_parts`.

    Raises:
        FileNotFoundError: nothing is there; the message lists where it was looked for.
        ValueError: the model is not supported, lacks a part, or its weights do not fit its config.
    """
    parts = load_parts(path, text_encoder=text_encoder, vae=vae, t5=t5)
    if prediction_type != "auto":
        parts["prediction_type"] = prediction_type
    return Backbone(source=path, **parts | {"family": FAMILIES[parts["family"]]})


def load_parts(
    path: str, *, text_encoder: str = "", vae: str = "", t5: torch.dtype | None = torch.bfloat16
) -> dict[str, Any]:
    """All parts of a model, in evaluation mode, without gradients; in fp32, except T5.

    Args:
        path: diffusers folder, hub id or single .safetensors file.
        text_encoder, vae: diffusers folders or hub ids to take these parts from instead.
        t5: dtype of PixArt's text encoder, which is 19 GB in fp32; None leaves out the encoder and its tokenizer.

    Returns:
        family, network, text_encoder, tokenizer, vae, schedule, prediction_type and recipe (of a student's file).

    Raises:
        FileNotFoundError: nothing is there; the message lists where it was looked for.
        ValueError: the model is not supported or damaged, or lacks a part that no setting names.
    """
    files = open_model(path)
    with_text = files.family != "pixart" or t5 is not None
    absent = [] if files.read_text_encoder or text_encoder or not with_text else ["text_encoder"]
    absent += [] if files.read_vae or vae else ["vae"]
    if absent:
        raise ValueError(
            f"{path} has no {' and no '.join(absent)}; name a diffusers folder or hub id that has: "
            f"{' and '.join(f'teacher.{part}' for part in absent)} in a recipe, "
            f"{' and '.join('--' + part.replace('_', '-') for part in absent)} of training.export"
        )
    with errors_naming(path):
        network = files.read_network()
    encoder = tokenizer = None
    if with_text:
        with errors_naming(text_encoder or path):
            if text_encoder:
                encoder, tokenizer = read_text_encoder(find_folder(text_encoder), t5)
            else:
                encoder, tokenizer = files.read_text_encoder(t5)
    with errors_naming(vae or path):
        decoder = read_vae(find_folder(vae)) if vae else files.read_vae()
    for module in (network, decoder, encoder):
        if module is not None:
            module.eval().requires_grad_(False)
    return {
        "family": files.family,
        "network": network,
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "vae": decoder,
        "schedule": files.schedule,
        "prediction_type": files.prediction_type,
        "recipe": files.recipe,
    }
