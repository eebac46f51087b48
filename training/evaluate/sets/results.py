"""The JSON files that `score` and `removal` write: results, and the images and software that they belong to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snoopi_core.formats.atomic import write_atomically
from training.config import package_versions
from training.evaluate.sets.image_files import digest_of
from training.evaluate.sets.manifest import Manifest
from training.trainer.export import provenance
from training.trainer.run_folder.describe import command_line

SCORES, REMOVAL = "scores.json", "removal-{}.json"  # {}: the judge, so that several can judge the same images
Result = dict[str, Any]
_LIBRARIES = ("numpy", "open_clip_torch", "pillow", "torch-fidelity", "torchvision")


def about_set(folder: Path, manifest: Manifest) -> Result:
    """Describes the images that results belong to.

    Sets that differ in their method only have the same `setup` and `prompts`; `digest` identifies the images.
    """
    return {
        "folder": str(folder),
        "digest": digest_of(folder, manifest),
        "setup": manifest.setup(),
        "prompts": manifest.prompts(),
        "title": manifest.title,
        "method": manifest.method,
        "model": None if manifest.model is None else manifest.model.model_dump(mode="json"),
        "images": len(manifest.images),
        "seed": manifest.seed,
        "protocol": manifest.protocol,
    }


def write_result(path: Path, kind: str, content: Result) -> None:
    """Write results of a `kind` ("scores" or "removal") atomically.

    Raises:
        ValueError: the file exists and is not of this kind; it is left unchanged.
    """
    if path.exists() and kind_of(path) != kind:
        raise ValueError(f"{path} exists and holds no {kind}; nothing was written, choose another --out")
    result = {
        "format": 1,
        "kind": kind,
        **content,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "versions": provenance().versions | package_versions(*_LIBRARIES),
    }
    write_atomically(path, json.dumps(result, indent=1) + "\n")


def kind_of(path: Path) -> str:
    """The kind of results in a file; "" if it is another file."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_result(path: Path, kind: str) -> Result:
    """Read results. Raises ValueError if the file does not hold results of this kind."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        known = result["kind"] == kind and result["format"] == 1 and isinstance(result["sets"], list)
        if known and all(row["digest"] for row in result["sets"]):
            return result
        raise ValueError(f"kind {result['kind']!r}, format {result['format']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no {kind} of this program ({error}); measure it again") from error
