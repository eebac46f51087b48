"""Find a model by the path or hub id in a recipe, and recognise its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from snoopi_core.formats.checkpoint import find_metadata
from snoopi_core.formats.tensor_file import open_tensor_file
from training.config.sources import ROOT, find_file, looks_like_hub_id
from training.models.loading.folder import CONFIGS, Folder, open_folder
from training.models.loading.model_files import ModelFiles
from training.models.loading.single_file import open_contract, open_single_file

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_EXPECTED = (
    "expected a diffusers folder (with unet/ or transformer/, text_encoder/, tokenizer/, vae/ and scheduler/), "
    "a .safetensors file, or a hub id such as owner/name"
)


def open_model(path: str) -> ModelFiles:
    """Find a model and recognise its format.

    Args:
        path: diffusers folder, hub id or single .safetensors file.

    Raises:
        FileNotFoundError: nothing is there; the message lists where it was looked for.
        ValueError: the model is not supported, or its file is damaged.
    """
    found = find_file(path)
    if not found.is_file():
        return open_folder(find_folder(path))
    file = open_tensor_file(found)  # refuses pickles, and names them in the error
    metadata = find_metadata(file)
    return open_single_file(file) if metadata is None else open_contract(file, metadata)


def find_folder(path: str) -> Folder:
    """A local folder, or the model on the hub if there is none and `path` could be a hub id.

    Raises:
        FileNotFoundError: neither is there; the message lists where it was looked for.
    """
    found = find_file(path)
    if found.is_dir():
        return Folder(path, found)
    given = Path(path).expanduser()
    looked = dict.fromkeys([str(given.absolute()), str(ROOT / given)])
    missing = f"no model at {path!r}: looked for {' and '.join(looked)}"
    if not looks_like_hub_id(path) or path.endswith(_WEIGHTS):
        raise FileNotFoundError(f"{missing}; {_EXPECTED}")
    try:
        return Folder(path, Path(snapshot_download(path, allow_patterns=CONFIGS)), hub_id=path)
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{missing}, and for {path} on the hub, which failed ({reason}); {_EXPECTED}. Without access to the "
            "hub, download the model elsewhere and give the path of its folder or file"
        ) from error


def scheduler_config(path: str) -> dict[str, Any] | None:
    """The scheduler config with which a diffusers folder is sampled; None for a single file.

    Raises:
        FileNotFoundError: nothing is there, or the folder has no scheduler.
    """
    if find_file(path).is_file():
        return None
    file = find_folder(path).root / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no scheduler/scheduler_config.json")
    return json.loads(file.read_text(encoding="utf-8"))
