"""The weights files of one part of a diffusers folder, checked by name and header before anything is loaded.

A dry run calls this too, so it finds what would stop the run: pointers of git-lfs, pickles, files cut short, and
missing parts of a sharded model.
"""

from __future__ import annotations

import json
from pathlib import Path

from snoopi_core.formats.checkpoint import CheckpointError
from snoopi_core.formats.tensor_file import open_tensor_file

COPIES = ("fp16", "bf16")  # variants with the same weights in half precision, used if there are no others
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_AGAIN = "download the model again, for example with `hf download owner/name --local-dir FOLDER`"


def check_weights(part: Path, stem: str) -> str | None:
    """Find and check the weights files of a part.

    Args:
        stem: the beginning of their names: "model" (transformers) or "diffusion_pytorch_model" (diffusers).

    Returns:
        The variant to load: "fp16" or "bf16" if only that is there, else None.

    Raises:
        FileNotFoundError: there are none, only pickles (which are never opened), or a shard is missing.
        CheckpointError: a file is damaged, cut short or a pointer of git-lfs.
    """
    for variant in (None, *COPIES):
        dot = f".{variant}" if variant else ""
        index, single = part / f"{stem}.safetensors.index{dot}.json", part / f"{stem}{dot}.safetensors"
        files = _shards(index) if index.is_file() else [single] if single.is_file() else []
        for file in files:
            try:
                open_tensor_file(file)
            except CheckpointError as error:
                raise CheckpointError(f"{file.parent}: {error}") from error
        if files:
            return variant
    others = sorted(path.name for path in part.iterdir() if path.suffix == ".safetensors")
    if others:
        raise FileNotFoundError(
            f"{part} has no {stem}.safetensors; it has {', '.join(others[:5])}. Expected {stem}.safetensors, the same "
            f"with .fp16, or shards with {stem}.safetensors.index.json; {_AGAIN}"
        )
    pickles = ", ".join(path.name for path in sorted(part.iterdir()) if path.suffix in _PICKLES)
    raise FileNotFoundError(
        f"{part} has no .safetensors file"
        + (
            f"; {pickles} could run code when opened, and is not read. Take a version of the model with .safetensors "
            "files (many pages on the hub have one, also as a pull request)"
            if pickles
            else f"; {_AGAIN}"
        )
    )


def _shards(index: Path) -> list[Path]:
    """The files that an index names.

    Raises:
        CheckpointError: it is damaged. FileNotFoundError: a file is missing.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged ({error}); {_AGAIN}") from error
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{index.parent}: {len(missing)} of the {len(files)} weights files that {index.name} names are missing, "
            f"first {missing[0]}; {_AGAIN}"
        )
    return files
