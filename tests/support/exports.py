"""Files as the trainer exports them, of a tiny model; and the same files put together wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_backbone

from snoopi_core.checkpoint import CheckpointError, OneStepRecipe
from snoopi_core.host.loader import load_checkpoint
from training.backbone import Backbone
from training.export import export_backbone

RECIPE = OneStepRecipe(timesteps=(999,), alpha_T=0.0047**0.5, sigma_T=(1 - 0.0047) ** 0.5)


def export(path: Path, prediction_type: str = "epsilon") -> Backbone:
    """A file in fp16 and, in fp32, exactly what is in it."""
    backbone = tiny_backbone(prediction_type)
    export_backbone(path, backbone, title="tiny", role="student", recipe=RECIPE, recommended_alpha=0.8)
    for module in (backbone.unet, backbone.vae, backbone.text_encoder):
        module.half().float()
    return backbone


def rewritten(good: Path, change: Callable[[dict, dict], Any], name: str = "changed.safetensors") -> Path:
    """A good file with its tensors or metadata changed."""
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
    """Opening the file says what is wrong, after the file's name."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path, **settings)
    assert str(caught.value).startswith(path.name)
