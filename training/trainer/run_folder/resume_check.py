"""Whose a run folder is: one process trains in it at a time, and goes on with what was begun there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from filelock import FileLock, Timeout
from pydantic import ValidationError

from training.config import Recipe, RecipeError
from training.trainer.distributed.accelerator import on_main
from training.trainer.run_folder.checkpoint import checkpoints, iteration_of, sweep

LOCK = ".lock"
# What changes no number of the training, or only how far it goes (and with a cooldown, when it slows down).
_FREE = {
    "output",
    "loop.iterations",
    "loop.threads",
    "loop.micro_batch",
    "loop.gradient_checkpointing",
    "loop.compile",
    "loop.channels_last",
    "loop.max_skipped",
}
# What decides which weights and moments there are.
_FIXED = {
    "student.train",
    "student.lora_rank",
    "student.lora_targets",
    "lora.rank",
    "lora.targets",
    "loop.optimizer",
}


@contextmanager
def claimed(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Hold a run folder against every other run, until this one ends or is killed; all processes must enter.

    Raises:
        RecipeError: another run has it.
        OSError: nothing can be written there.
    """
    lock = FileLock(folder / LOCK)
    made: list[Path] = []

    def take() -> None:
        made.extend(path for path in (folder, *folder.parents) if not path.exists())
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RecipeError(
                f"another process is training in {folder}; wait for it or stop it, or choose another output.folder"
            ) from None
        sweep(folder / "checkpoints")

    on_main(accelerator, take)
    try:
        yield
    finally:
        with suppress(OSError):
            if made and [path.name for path in folder.iterdir()] == [LOCK]:  # the run died before it began
                (folder / LOCK).unlink()
                for path in made:
                    path.rmdir()
        lock.release()


def check_folder(folder: Path, recipe: Recipe, *, resume: bool, accept_changes: bool) -> list[str]:
    """Whether a run may begin, or go on, in `folder`. Changes nothing there.

    Returns:
        Changes of the recipe that were accepted, a line each.

    Raises:
        RecipeError: it holds a run and no --resume was given; or its recipe was another, unless that is accepted; or it
            has done more iterations than are wanted.
    """
    saved = checkpoints(folder / "checkpoints")
    if saved and not resume:
        raise RecipeError(f"{folder} holds a run already; continue it with --resume, or choose another output.folder")
    if saved and (done := iteration_of(saved[-1])) > recipe.loop.iterations:
        raise RecipeError(
            f"loop.iterations is {recipe.loop.iterations}, and the run in {folder} has done {done}; give {done} or "
            f"more, or export what it has by python -m training.export {folder} --out FILE.safetensors"
        )
    before = _last_recipe(saved)
    changes = recipe_changes(before, recipe.model_dump(mode="json")) if before else {}
    if fixed := [line for name, line in changes.items() if name in _FIXED]:
        raise RecipeError(
            "the run was started with other networks or another optimiser, so its checkpoints do not fit; use the old "
            "settings, or another output.folder:\n  " + "\n  ".join(fixed)
        )
    lines = list(changes.values())
    if lines and not accept_changes:
        raise RecipeError(
            "the run was started with another recipe; use that one, or another output.folder, or go on with this one "
            "by --accept-changes:\n  " + "\n  ".join(lines)
        )
    return lines


def recipe_changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings that differ, by name, a readable line each; without those that change no number."""
    changes: dict[str, str] = {}
    for key in sorted(old.keys() | new.keys()):
        name = prefix + key
        if name in _FREE:
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changes |= recipe_changes(before, after, f"{name}.")
        elif before != after:
            changes[name] = f"{name}: {before} -> {after}"
    return changes


def _last_recipe(saved: list[Path]) -> dict[str, Any]:
    """Of the newest checkpoint that can say; whether it is whole is looked at when the run goes on."""
    for path in reversed(saved):
        with suppress(OSError, KeyError, TypeError, ValueError):
            recipe = dict(json.loads((path / "state.json").read_text(encoding="utf-8"))["recipe"])
            with suppress(ValidationError):  # one of another version: settings that it did not have are as by default
                return Recipe.model_validate(recipe).model_dump(mode="json")
            return recipe
    return {}
