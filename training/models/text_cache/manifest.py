"""The manifest of a text cache: the encoder that made it, and the size and hash of each shard. Written last."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from snoopi_core.formats.atomic import write_atomically

MANIFEST = "manifest.json"
FORMAT = 1
_COMPARED = ("family", "max_tokens", "width", "pooled", "loras")
HOW_TO_BUILD = (
    "build it, or add to it, with python -m training.prompts.encode and the recipe and settings of the training run"
)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest` with its hash. Raises: OSError."""
    content = json.dumps(manifest | {"sha256": _sha256(manifest)}, indent=1)
    write_atomically(folder / MANIFEST, content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished cache, without its hash.

    Raises:
        FileNotFoundError: there is no finished cache.
        ValueError: the manifest is damaged, or has another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        shards = len(list(folder.glob("*.safetensors")))
        state = f"{shards} shards of an unfinished one" if shards else "none"
        raise FileNotFoundError(f"no text cache in {folder}: it holds {state}; {HOW_TO_BUILD}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.pop("sha256") != _sha256(manifest):
            raise ValueError("its hash does not match")
        version, _, _ = manifest["format"], manifest["encoder"], manifest["shards"]
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and {HOW_TO_BUILD}") from error
    if version != FORMAT:
        raise ValueError(
            f"{folder} is a text cache of format {version}, but this version reads format {FORMAT}; build it again"
        )
    return manifest


def check_same_encoder(cached: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Check that a cache in `folder` was made by the wanted encoder; both as `describe_encoder` returns them.

    Weights are compared only if both sides list some.

    Raises:
        ValueError: the encoders differ; the message says in what.
    """
    different = [name for name in _COMPARED if cached.get(name) != wanted.get(name)]
    ours, theirs = wanted["weights"], cached.get("weights", {})
    if ours and theirs:
        common = ours.keys() & theirs.keys()
        if not common or any(ours[name] != theirs[name] for name in common):
            different.append("weights")
    if different:
        details = ", ".join(f"{name} {_short(cached.get(name))}, not {_short(wanted.get(name))}" for name in different)
        raise ValueError(
            f"{folder} holds text embeddings of another encoder, {cached.get('source')!r}, than this teacher's, "
            f"{wanted['source']!r} ({details}); choose another folder with prompts.text_cache"
        )


def _sha256(manifest: dict[str, Any]) -> str:
    """The hash of a manifest that does not contain its hash."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    return "/".join(f"{name}:{hash_[:8]}" for name, hash_ in value.items()) if isinstance(value, dict) else repr(value)
