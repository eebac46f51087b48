"""Which text encoder made a cache, told without loading it: a run with a cache need not have its weights at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from training.config import Teacher
from training.config.sources import find_file

if TYPE_CHECKING:
    from training.models.backbone import Backbone

_SAMPLES, _SAMPLE = 64, 1 << 20  # bytes of a weights file that are looked at: weights that were trained on differ


def describe_encoder(section: Teacher, backbone: Backbone) -> dict[str, Any]:
    """What must be equal for embeddings to be interchangeable.

    family, max_tokens and width (E) always count. weights are the encoder's files on this machine, each with a hash of
    its size and of 64 pieces of it; none where they are not here. source is for messages.
    """
    config = backbone.network.config
    return {
        "family": backbone.family.name,
        "max_tokens": backbone.family.max_tokens(backbone.tokenizer),
        "width": config.get("caption_channels") or config["cross_attention_dim"],
        "weights": {path.name: _fingerprint(path) for path in _weights(section)},
        "source": section.text_encoder or section.path,
    }


def check_same(cached: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raises ValueError where the cache's encoder is another one; files that only one side has cannot be compared."""
    different = [name for name in ("family", "max_tokens", "width") if cached.get(name) != wanted[name]]
    ours, theirs = wanted["weights"], cached.get("weights", {})
    if ours and theirs:
        common = ours.keys() & theirs.keys()
        if not common or any(ours[name] != theirs[name] for name in common):
            different.append("weights")
    if different:
        said = ", ".join(f"{name} {_short(cached.get(name))} for {_short(wanted[name])}" for name in different)
        raise ValueError(
            f"{folder} holds text embeddings of another encoder, {cached.get('source')!r}, than this teacher's, "
            f"{wanted['source']!r} ({said}); choose another folder with prompts.text_cache"
        )


def _weights(section: Teacher) -> list[Path]:
    """The encoder's weights files, as far as they are on this machine."""
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


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    content = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for n in range(_SAMPLES):
            file.seek(max(0, (size - _SAMPLE) * n // (_SAMPLES - 1)))
            content.update(file.read(_SAMPLE))
    return content.hexdigest()


def _short(value: Any) -> str:
    return "/".join(f"{name}:{hash_[:8]}" for name, hash_ in value.items()) if isinstance(value, dict) else repr(value)
