"""Whose a folder of images is: one list of images for good, and one run that writes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelerate import Accelerator
from filelock import FileLock, Timeout

from snoopi_core.formats.atomic import write_atomically
from training.evaluate.sets.manifest import NAME, Manifest, held_by, read_manifest
from training.trainer.distributed.accelerator import on_main

LOCK = ".lock"


def check_folder(folder: Path, manifest: Manifest) -> Manifest | None:
    """Whether a folder may take the images of `manifest`; changes nothing.

    Returns:
        The manifest that is there; None where there is none yet, or none of its images.

    Raises:
        ValueError: the folder holds other images, or something else.
    """
    if (folder / NAME).is_file():
        before = read_manifest(folder)
        if changes := _changes(before.identity(), manifest.identity()):
            if not any((folder / row.file).exists() for row in before.images):
                return None  # nothing was made as it says
            raise ValueError(
                f"{folder} holds images that were made otherwise; choose another --out, or go back to what it was:\n  "
                + "\n  ".join(changes)
            )
        return before
    if folder.is_dir() and (others := held_by(folder, but=LOCK)):
        raise ValueError(f"{folder} is not empty and no folder of images ({others}); choose another --out")
    return None


def claim_folder(folder: Path, manifest: Manifest, labels: Mapping[str, str] = MappingProxyType({})) -> Manifest:
    """Write `manifest` into a new folder, or find that the folder holds the same already; `labels` are changed there.

    Returns:
        The manifest as it is on the disk.

    Raises:
        ValueError: see `check_folder`.
    """
    before = check_folder(folder, manifest)
    now = manifest if before is None else before.model_copy(update=dict(labels))
    if now != before:
        write_atomically(folder / NAME, now.model_dump_json(indent=1, exclude_defaults=True, exclude_none=True))
    return now


@contextmanager
def held(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Hold a folder against every other run that would write into it; all processes must enter.

    Raises:
        ValueError: another run has it.
    """
    lock = FileLock(folder / LOCK)

    def take() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another process is making images in {folder}; wait for it, or stop it") from None

    on_main(accelerator, take)
    try:
        yield
    finally:
        lock.release()


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, a line each; of the images the number that differ."""
    lines = [f"{key}: {before[key]} -> {now[key]}" for key in now if key != "images" and before[key] != now[key]]
    if before["images"] != now["images"]:
        pairs = zip(before["images"], now["images"], strict=False)
        first = next((f", first {old} -> {new}" for old, new in pairs if old != new), "")
        lines.append(f"prompts, negatives or counts: {len(before['images'])} images -> {len(now['images'])}{first}")
    return lines
