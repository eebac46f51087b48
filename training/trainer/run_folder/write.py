"""Writes a run's checkpoints: under a temporary name, flushed to disk and then renamed; and deletes old ones."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from training.config import Recipe
from training.trainer.run_folder.checkpoint import (
    STATE,
    SUMS,
    VALUES,
    RunState,
    checkpoints,
    rename_damaged,
    sha256,
    shortfalls,
    temporary_of,
)

log = logging.getLogger(__name__)


def save_state(folder: Path, state: RunState, recipe: Recipe) -> Path:
    """Write `state` below `folder` (the run's checkpoints/) atomically, then delete old ones as the recipe says.

    Raises:
        OSError: it cannot be written, for instance because the disk is full; what was written is removed.
    """
    temporary = begin(folder, state.iteration)
    final = folder / f"step-{state.iteration:08d}"
    if temporary is None:
        return final
    with removed_after_error(temporary):
        sums = write_tensors(temporary, state)
        commit(temporary, final, state, recipe, sums)
    return final


def begin(folder: Path, iteration: int) -> Path | None:
    """A new folder to write a checkpoint into; None if it was saved already: the run was stopped right after a save."""
    final = folder / f"step-{iteration:08d}"
    if (final / STATE).is_file():
        return None
    temporary = temporary_of(final)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


@contextmanager
def removed_after_error(temporary: Path) -> Iterator[None]:
    """Remove an unfinished checkpoint after an error. Raises OSError if the disk is full."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # safetensors raises this if the disk is full
            raise OSError(str(error)) from error
        raise


def write_tensors(folder: Path, state: RunState, part: str = "") -> dict[str, str]:
    """Write and flush the tensors of `state`, each network to a file of its own; returns the files' hashes.

    Args:
        part: of a process that writes only a part of them, such as ".0-of-2".
    """
    tensors = {f"{name}{part}.safetensors": weights for name, weights in state.networks.items()}
    tensors |= {f"{_moments(name)}{part}.safetensors": saved.tensors for name, saved in state.optimizers.items()}
    for name, weights in tensors.items():
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)
        _fsync(folder / name)
    return {name: sha256(folder / name) for name in tensors}


def commit(
    temporary: Path, final: Path, state: RunState, recipe: Recipe, sums: dict[str, str], parts: Sequence[str] = ("",)
) -> None:
    """Make what was written into `temporary` the checkpoint `final`, and delete old ones.

    Args:
        sums: hashes of all files of tensors. parts: of each process that wrote some.
    """

    def files(name: str) -> str | list[str]:
        several = [f"{name}{part}.safetensors" for part in parts]
        return several[0] if len(parts) == 1 else several

    content = {
        **{name: getattr(state, name) for name in VALUES},
        "recipe": recipe.model_dump(mode="json"),
        "networks": {name: files(name) for name in state.networks},
        "optimizers": {name: files(_moments(name)) for name in state.optimizers},
        "settings": {name: saved.settings for name, saved in state.optimizers.items()},
    }
    (temporary / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    sums = sums | {STATE: sha256(temporary / STATE)}
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    (temporary / SUMS).write_text(lines, encoding="utf-8")
    for path in (temporary / STATE, temporary / SUMS, temporary):
        _fsync(path)
    if final.exists():
        rename_damaged(final)
    os.rename(temporary, final)
    _fsync(final.parent)
    _fsync(final.parent.parent)
    try:
        _prune(final.parent, recipe.output.keep_last, keep_best=recipe.output.keep_best)
    except OSError as error:
        log.warning("an old checkpoint cannot be deleted: %s", error)


def _moments(name: str) -> str:
    return f"optimizer_{name}"


def _prune(folder: Path, keep_last: int, *, keep_best: bool) -> None:
    measured = shortfalls(folder) if keep_best else {}
    best = min(reversed(measured), key=measured.__getitem__, default=None)
    for old in checkpoints(folder)[:-keep_last]:
        if old != best:
            shutil.rmtree(temporary_of(old), ignore_errors=True)
            # renamed first, so that a half-deleted folder does not look like a checkpoint
            os.rename(old, temporary_of(old))
            shutil.rmtree(temporary_of(old))


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot flush folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
