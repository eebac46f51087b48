"""Identify a text encoder by its files, without loading it: a run with a text cache needs no encoder weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from training.config import Teacher
from training.config.sources import find_file
from training.models.backbone import Backbone

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 20  # how much of a weights file is hashed; further training changes all of it


def describe_encoder(section: Teacher, backbone: Backbone) -> dict[str, Any]:
    """The properties that must be equal for embeddings to be interchangeable.

    family, max_tokens and width (E) are always compared. weights maps the encoder's files on this machine to a hash of
    their size and of 64 samples; it is empty if there are none. source is only used in messages.
    """
    config = backbone.network.config
    return {
        "family": backbone.family.name,
        "max_tokens": backbone.family.max_tokens(backbone.tokenizer),
        "width": config.get("caption_channels") or config["cross_attention_dim"],
        "weights": {path.name: _sampled_hash(path) for path in _weights_files(section)},
        "source": section.text_encoder or section.path,
    }


def _weights_files(section: Teacher) -> list[Path]:
    """The encoder's weights files that are on this machine."""
    name = section.text_encoder or section.path
    place = find_file(name)
    if place.is_file():
        return [place]
    if not place.is_dir():
        try:
            place = Path(snapshot_download(name, local_files_only=True))
        except (OSError, HfHubHTTPError, HFValidationError):
            return []
    part = place / "text_encoder"
    return sorted((part if part.is_dir() else place).glob("*.safetensors"))


def _sampled_hash(path: Path) -> str:
    size = path.stat().st_size
    content = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for n in range(_SAMPLES):
            file.seek(max(0, (size - _SAMPLE_BYTES) * n // (_SAMPLES - 1)))
            content.update(file.read(_SAMPLE_BYTES))
    return content.hexdigest()
