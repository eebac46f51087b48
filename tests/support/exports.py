"""Files of a tiny model as the trainer exports them, and invalid variants of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_backbone

from snoopi_core.formats.checkpoint import (
    Checkpoint,
    CheckpointError,
    Metadata,
    OneStepRecipe,
    Schedule,
    write_checkpoint,
)
from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.host.loading.loader import load_checkpoint
from training.models.backbone import Backbone
from training.trainer.export import export_backbone

RECIPE = OneStepRecipe(timesteps=(999,), alpha_T=0.0047**0.5, sigma_T=(1 - 0.0047) ** 0.5)


def export(path: Path, prediction_type: str = "epsilon") -> Backbone:
    """An fp16 file, and a backbone with the same values in fp32."""
    backbone = tiny_backbone(prediction_type)
    export_backbone(path, backbone, title="tiny", role="student", recipe=RECIPE, recommended_alpha=0.8)
    for module in (backbone.network, backbone.vae, backbone.text_encoder):
        module.half().float()
    return backbone


def pixart_export(path: Path, recipe: OneStepRecipe | None = None, **config: Any) -> PixArtTransformer2DModel:
    """A tiny PixArt as an fp16 file, and as a diffusers network with the same values in fp32."""
    settings = {
        "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "cross_attention_dim": 24,
        "caption_channels": 16, "sample_size": 64, "use_additional_conditions": False, **config,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = PixArtTransformer2DModel(**settings).eval().requires_grad_(False)
    for weight in transformer.parameters():  # without the table of positions, which no file contains
        weight.data = weight.data.add(0.02 * torch.randn_like(weight)).half().float()
    metadata = Metadata(
        title="tiny PixArt", role="student", family="pixart", prediction_type="epsilon", latent_scale=0.18215,
        unet=dict(transformer.config), recipe=recipe, recommended_alpha=0.8,
        schedule=Schedule(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )  # fmt: skip
    weights = pixart_to_single_file(transformer.state_dict())
    write_checkpoint(path, Checkpoint(metadata=metadata, unet=weights))
    return transformer


def rewritten(good: Path, change: Callable[[dict, dict], Any], name: str = "changed.safetensors") -> Path:
    """A copy of a valid file with changed tensors or metadata."""
    with safe_open(good, framework="pt") as file:
        header = file.metadata() or {}
    tensors = load_file(good)
    change(tensors, header)
    path = good.with_name(name)
    save_file(tensors, path, metadata=header)
    return path


def changed_config(part: str | None, **changes: Any) -> Callable[[dict, dict], None]:
    """A change of a part's config in the metadata, or of the metadata itself."""

    def change(tensors: dict, header: dict) -> None:
        model = json.loads(header["snoopi.model"])
        target = model if part is None else model[part]
        target.update(changes)
        header["snoopi.model"] = json.dumps(model)

    return change


def assert_refused(path: Path, message: str, **settings: Any) -> None:
    """Opening the file must raise an error with the file's name and this message."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path, **settings)
    assert str(caught.value).startswith(path.name)
