"""Find checkpoint and LoRA files in the host's folders and in the pack's own models folder."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...formats.tensor_file import SUFFIXES, has_suffix, readable

OWN_SUFFIX = ".safetensors"
NO_LORA = "none"
HOST_FOLDERS = ("checkpoints", "diffusion_models")
PACK_FOLDER = Path(__file__).resolve().parents[3] / "models"


def _paths() -> dict[str, Path]:
    """Displayed name -> file. A file in the host's folders overrides the pack's file of the same name."""
    found: dict[str, Path] = {}
    for path in sorted(PACK_FOLDER.rglob(f"*{OWN_SUFFIX}")):
        found[path.relative_to(PACK_FOLDER).as_posix()] = path
    for folder in reversed(HOST_FOLDERS):
        for name in folder_paths.get_filename_list(folder):
            if has_suffix(name) and (path := folder_paths.get_full_path(folder, name)) is not None:
                found[name] = Path(path)
    return found


def checkpoint_names() -> list[str]:
    """Names for the loader's menu; the pack's own files come last."""
    own = {path.relative_to(PACK_FOLDER).as_posix() for path in PACK_FOLDER.rglob(f"*{OWN_SUFFIX}")}
    return sorted(_paths(), key=lambda name: (name in own, name))


def find_checkpoint(name: str) -> Path:
    """The file of a name in the menu. Other names are refused, so no name can point outside the folders.

    Raises:
        ValueError: unknown name; lists the available files and the folders.
    """
    return _find(
        "checkpoint", name, _paths(), f"models/{', models/'.join(HOST_FOLDERS)} and in this pack's models/ folder"
    )


def lora_names() -> list[str]:
    """Names for the loader's LoRA menu, starting with `none`."""
    return [NO_LORA, *sorted(_loras())]


def find_lora(name: str) -> Path | None:
    """The file of a LoRA in the menu; None for `none`.

    Raises:
        ValueError: unknown name; lists the available LoRAs and the folder.
    """
    if name == NO_LORA:
        return None
    return _find("LoRA", name, _loras(), "models/loras")


def _find(kind: str, name: str, paths: dict[str, Path], folders: str) -> Path:
    if name not in paths:
        there = ", ".join(sorted(paths)[:20]) or "none"
        message = f"{kind} {name[:200]!r} was not found; available: {there}. "
        raise ValueError(readable(f"{message}PG-SB Loader opens {' and '.join(SUFFIXES)} files in {folders}"))
    return paths[name]


def _loras() -> dict[str, Path]:
    paths = {name: folder_paths.get_full_path("loras", name) for name in folder_paths.get_filename_list("loras")}
    return {name: Path(path) for name, path in paths.items() if path is not None and has_suffix(name)}


def fingerprint(name: str, lora_name: str = NO_LORA) -> str:
    """A text that changes when one of these files is replaced."""
    paths = [find_checkpoint(name), find_lora(lora_name)]
    stats = [path.stat() for path in paths if path is not None]
    return ";".join([name, lora_name, *(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)])
