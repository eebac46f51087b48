"""Checks whether a run may start or resume in a folder, given the recipe of the run that is there."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.config import Recipe, RecipeError
from training.trainer.run_folder.checkpoint import checkpoints, iteration_of

# Settings that do not change the numbers of the training beyond rounding, except for its length (and so the start of a
# cooldown).
_HARMLESS = {
    "output",
    "evaluate",
    "loop.iterations",
    "loop.threads",
    "loop.micro_batch",
    "loop.gradient_checkpointing",
    "loop.compile",
    "loop.channels_last",
    "loop.cudnn_benchmark",
    "loop.max_skipped",
}
# Settings that decide which weights and moments exist.
_FIXED = {
    "student.train",
    "student.lora_rank",
    "student.lora_targets",
    "lora.rank",
    "lora.targets",
    "loop.optimizer",
}


def check_folder(folder: Path, recipe: Recipe, *, resume: bool, accept_changes: bool) -> list[str]:
    """Check whether a run may start, or resume, in `folder`. Changes nothing there.

    Returns:
        Accepted changes of the recipe, one line each.

    Raises:
        RecipeError: the folder holds a run and `resume` is False; or its recipe differs and `accept_changes` is False;
            or it has done more iterations than the recipe asks for.
    """
    saved = checkpoints(folder / "checkpoints")
    if saved and not resume:
        raise RecipeError(f"{folder} already holds a run; continue it with --resume, or choose another output.folder")
    if saved and (done := iteration_of(saved[-1])) > recipe.loop.iterations:
        raise RecipeError(
            f"loop.iterations is {recipe.loop.iterations}, but the run in {folder} has done {done}; give at least "
            f"{done}, or export its student with python -m training.export {folder} --out FILE.safetensors"
        )
    before = _saved_recipe(saved)
    changes = recipe_changes(before, recipe.model_dump(mode="json")) if before else {}
    if fixed := [line for name, line in changes.items() if name in _FIXED]:
        raise RecipeError(
            "the run was started with other networks or another optimiser, so its checkpoints do not fit; restore "
            "these settings, or choose another output.folder:\n  " + "\n  ".join(fixed)
        )
    lines = list(changes.values())
    if lines and not accept_changes:
        older = "\nOlder versions shuffled in blocks of 65,536: give prompts.shuffle_block=65536 to continue such a run"
        raise RecipeError(
            "the run was started with another recipe; restore it, or choose another output.folder, or continue with "
            "this one by --accept-changes:\n  "
            + "\n  ".join(lines)
            + older * changes.get("prompts.shuffle_block", "").endswith(": 65536 -> 0")
        )
    return lines


def recipe_changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings that differ, as name -> "name: old -> new"; without those that do not change the training."""
    changes: dict[str, str] = {}
    for key in sorted(old.keys() | new.keys()):
        name = prefix + key
        if name in _HARMLESS:
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changes |= recipe_changes(before, after, f"{name}.")
        elif before != after:
            changes[name] = f"{name}: {before} -> {after}"
    return changes


def is_older_than_tf32(folder: Path) -> bool:
    """Whether the run in `folder` was started before loop.tf32 existed. On CUDA, torch's default then was TF32 in
    convolutions and full fp32 in matrix products, which neither value of the setting gives."""
    recipe = _read_recipe(checkpoints(folder / "checkpoints"))
    return bool(recipe) and "tf32" not in recipe.get("loop", {})


def _saved_recipe(saved: list[Path]) -> dict[str, Any]:
    """Recipe of the newest checkpoint that can be read; settings that came later have their defaults."""
    recipe = _read_recipe(saved)
    with suppress(ValidationError):
        return Recipe.of_run(recipe).model_dump(mode="json")
    return recipe


def _read_recipe(saved: list[Path]) -> dict[str, Any]:
    """As `_saved_recipe`, but as it was written. Hashes are checked later, when the run resumes."""
    for path in reversed(saved):
        with suppress(OSError, KeyError, TypeError, ValueError):
            return dict(json.loads((path / "state.json").read_text(encoding="utf-8"))["recipe"])
    return {}
