"""Saving and resuming a run. Each network is saved under its own name, so none can overwrite another.

A checkpoint is a folder `step-00000100/`. It is written under a temporary name, flushed to disk and renamed; every
file's hash stands in `state.json`, so a damaged checkpoint is noticed and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from training.config import Recipe

log = logging.getLogger(__name__)
StateDict = dict[str, torch.Tensor]
NETWORKS = ("student", "ema", "lora")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run needs to go on, beside its recipe; all random numbers follow from seed and iteration."""

    iteration: int
    student: StateDict
    ema: StateDict
    lora: StateDict
    optimizers: dict[str, Any]


def save_state(folder: Path, state: RunState, recipe: Recipe) -> Path:
    """Write `state` below `folder` (the run's checkpoints/), atomically, and drop all but the newest `keep_last`."""
    final = folder / f"step-{state.iteration:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in NETWORKS:
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in getattr(state, name).items()},
            temporary / f"{name}.safetensors",
        )
    torch.save(state.optimizers, temporary / "optimizers.pt")
    content = {
        "iteration": state.iteration,
        "recipe": recipe.model_dump(mode="json"),
        "sha256": {path.name: _sha256(path) for path in sorted(temporary.iterdir())},
    }
    (temporary / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    for path in [*temporary.iterdir(), temporary]:
        _fsync(path)
    if final.exists():  # a damaged one of the same step: out of the way first, so that a whole one is always there
        set_aside(final)
    os.rename(temporary, final)
    _fsync(folder)
    for old in checkpoints(folder)[: -recipe.output.keep_last]:
        shutil.rmtree(old)
    return final


def set_aside(path: Path) -> None:
    """Rename a checkpoint so that it counts no more; what it holds is kept for a person to look at."""
    target = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(path, target)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def load_newest(folder: Path) -> tuple[RunState, dict[str, Any]] | None:
    """The newest checkpoint that is whole, with the recipe it was made by; None when there is none.

    Damaged checkpoints are set aside with a warning, so that they do not count among those that are kept.
    """
    for path in reversed(checkpoints(folder)):
        try:
            return load_state(path)
        except (OSError, ValueError) as error:
            log.warning("checkpoint %s is damaged (%s); set aside, trying the one before it", path.name, error)
            set_aside(path)
    return None


def load_state(path: Path) -> tuple[RunState, dict[str, Any]]:
    """One checkpoint folder.

    Raises:
        ValueError: a file is missing or its hash differs.
    """
    try:
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        hashes, iteration, recipe = content["sha256"], content["iteration"], content["recipe"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of a run: {error}") from error
    for name in (*(f"{network}.safetensors" for network in NETWORKS), "optimizers.pt"):
        if not (path / name).is_file() or _sha256(path / name) != hashes.get(name):
            raise ValueError(f"{path.name}/{name} is missing or damaged")
    networks = {network: load_file(path / f"{network}.safetensors") for network in NETWORKS}
    # weights_only: an optimiser's state is plain numbers, so nothing in the file gets to run.
    optimizers = torch.load(path / "optimizers.pt", map_location="cpu", weights_only=True)
    return RunState(iteration=iteration, optimizers=optimizers, **networks), recipe


def recipe_changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, one readable line each. Where output goes and how long the run is may change freely."""
    changes = []
    for key in sorted(old.keys() | new.keys()):
        name = prefix + key
        if name in ("output", "loop.iterations", "loop.threads"):
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += recipe_changes(before, after, f"{name}.")
        elif before != after:
            changes.append(f"{name}: {before} -> {after}")
    return changes


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
