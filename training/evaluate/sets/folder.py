"""Protects a folder of images: its list of images is fixed, and one run at a time writes into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from snoopi_core.formats.atomic import write_atomically
from training.evaluate.sets.manifest import NAME, Manifest, list_names, read_manifest
from training.trainer.run_folder.lock import LOCK


def check_folder(folder: Path, manifest: Manifest) -> Manifest | None:
    """Check that the images of `manifest` can be written into a folder; changes nothing.

    Returns:
        The manifest in the folder; None if there is none, or none of its images has been made.

    Raises:
        ValueError: the folder holds other images or other files.
    """
    if (folder / NAME).is_file():
        before = read_manifest(folder)
        if changes := _changes(before.identity(), manifest.identity()):
            if not any((folder / row.file).exists() for row in before.images):
                return None
            raise ValueError(
                f"{folder} holds images that were made with other settings; choose another --out, or undo these "
                "changes:\n  " + "\n  ".join(changes)
            )
        return before
    if folder.is_dir() and (others := list_names(folder, ignore=LOCK)):
        raise ValueError(f"{folder} is not empty and holds no images of ours ({others}); choose another --out")
    return None


def claim_folder(folder: Path, manifest: Manifest, labels: Mapping[str, str] = MappingProxyType({})) -> Manifest:
    """Write `manifest` into a new folder, or update `labels` in the equal manifest that is there.

    Returns:
        The manifest now in the folder.

    Raises:
        ValueError: as `check_folder`.
    """
    before = check_folder(folder, manifest)
    now = manifest if before is None else before.model_copy(update=dict(labels))
    if now != before:
        write_atomically(folder / NAME, now.model_dump_json(indent=1, exclude_defaults=True, exclude_none=True))
    return now


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences of two manifests, one per line; for the images only their numbers and the first difference."""
    lines = [f"{key}: {before[key]} -> {now[key]}" for key in now if key != "images" and before[key] != now[key]]
    if before["images"] != now["images"]:
        pairs = zip(before["images"], now["images"], strict=False)
        first = next((f", first {old} -> {new}" for old, new in pairs if old != new), "")
        lines.append(f"prompts, negatives or counts: {len(before['images'])} images -> {len(now['images'])}{first}")
    return lines
