"""What the judges write: JSON files that say what was measured on which images, and with what."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from snoopi_core.formats.atomic import write_atomically
from training.evaluate.sets.image_files import digest_of
from training.evaluate.sets.manifest import Manifest
from training.trainer.export import provenance
from training.trainer.run_folder.describe import command_line

SCORES, REMOVAL = "scores.json", "removal-{}.json"  # with the judge's name: several may judge the same images
Result = dict[str, Any]
_JUDGES = ("numpy", "open_clip_torch", "pillow", "torch-fidelity", "torchvision")


def about_set(folder: Path, manifest: Manifest) -> Result:
    """The images that figures belong to, for a reader who does not have them. `digest`: of these very images; `setup`,
    `prompts`: what sets have in common that differ by their method alone."""
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


def write_result(path: Path, kind: str, content: Result) -> Path:
    """Write figures atomically; never over something else than figures of this kind.

    Raises:
        ValueError: there is another file of that name; it stays as it is.
    """
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8")).get("kind")
        except (OSError, ValueError, AttributeError):
            before = None
        if before != kind:
            raise ValueError(f"{path} is there already and holds no {kind}; nothing was written, choose another --out")
    result = {"format": 1, "kind": kind, **content}
    result |= {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "versions": provenance().versions | _versions(),
    }
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    return path


def _versions() -> dict[str, str]:
    """Of what the judges compute with."""
    found = {}
    for name in _JUDGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_result(path: Path, kind: str) -> Result:
    """Raises ValueError for a file that does not hold figures of this kind."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        known = result["kind"] == kind and result["format"] == 1 and isinstance(result["sets"], list)
        if known and all(row["digest"] for row in result["sets"]):
            return result
        raise ValueError(f"kind {result['kind']!r}, format {result['format']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no {kind} of this program ({error}); measure it again") from error
