"""Saving and resuming a run. Each network is saved under its own name, so none can overwrite another.

A checkpoint is a folder `step-00000100/`. It is written under a temporary name, flushed to disk and renamed; every
file's hash stands in `state.json`, so a damaged checkpoint is noticed and the one before it is used. All tensors are
safetensors; nothing is a pickle.
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

from safetensors.torch import load_file, save_file

from snoopi_core.layouts import StateDict
from training.config import Recipe
from training.distributed import OptimizerState

log = logging.getLogger(__name__)
NETWORKS = ("student", "ema", "lora")
OPTIMIZERS = ("student", "lora")
BEST = "best.json"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run needs to go on, beside its recipe. All random numbers follow from seed and iteration.

    networks: student, its running mean (absent without one) and LoRA teacher, what is trained of each. position: of the
    prompts. counts: whatever the run has counted so far. teacher: fingerprint of the teacher's weights.
    """

    iteration: int
    networks: dict[str, StateDict]
    optimizers: dict[str, OptimizerState]
    position: dict[str, Any]
    counts: dict[str, int]
    teacher: str

    @property
    def averaged(self) -> StateDict:
        """What is exported: the running mean, where there is one."""
        return self.networks.get("ema", self.networks["student"])


def save_state(folder: Path, state: RunState, recipe: Recipe, *, distance: float | None = None) -> Path:
    """Write `state` below `folder` (the run's checkpoints/), atomically; then drop all but the newest `keep_last`.

    Args:
        distance: the student's from the teacher, as last measured; the checkpoint with the least is kept as well.

    Raises:
        OSError: it cannot be written, the disk being full for instance; what was written of it is removed.
    """
    final = folder / f"step-{state.iteration:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, state, recipe)
        if final.exists():  # a damaged one of the same step: out of the way first, so that a whole one is always there
            set_aside(final)
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync(folder)
    if recipe.output.keep_best and distance is not None:
        best = read_best(folder)
        if best is None or distance <= best["distance"]:
            _write_json(folder / BEST, {"checkpoint": final.name, "distance": distance})
    _prune(folder, recipe.output.keep_last)
    return final


def set_aside(path: Path) -> None:
    """Rename a checkpoint so that it counts no more; what it holds is kept for a person to look at."""
    target = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(path, target)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def read_best(folder: Path) -> dict[str, Any] | None:
    """The best checkpoint's name and distance; None where none is marked, or it is no longer there."""
    try:
        best = json.loads((folder / BEST).read_text(encoding="utf-8"))
        return best if (folder / best["checkpoint"] / "state.json").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None when there is none.

    Damaged ones are set aside with a warning, so that they do not count among those that are kept; what a kill in the
    middle of a save left behind is removed.
    """
    for left in folder.glob(".step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    for path in reversed(checkpoints(folder)):
        try:
            check_whole(path)
            return path
        except (OSError, ValueError) as error:
            log.warning("checkpoint %s is damaged (%s); set aside, trying the one before it", path.name, error)
            set_aside(path)
    return None


def check_whole(path: Path) -> dict[str, Any]:
    """What state.json says, after every file's hash was compared with it.

    Raises:
        ValueError: a file is missing or its hash differs.
    """
    try:
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        hashes = dict(content["sha256"])
        {key: content[key] for key in ("iteration", "recipe", "position", "counts", "teacher", "optimizers")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of a run: {error}") from error
    for name, digest in hashes.items():
        if not (path / name).is_file() or _sha256(path / name) != digest:
            raise ValueError(f"{path.name}/{name} is missing or damaged")
    return content


def load_state(path: Path) -> RunState:
    """One checkpoint folder that was found whole."""
    content = json.loads((path / "state.json").read_text(encoding="utf-8"))
    files = content["sha256"]
    return RunState(
        iteration=content["iteration"],
        networks={name: load_file(path / f"{name}.safetensors") for name in NETWORKS if f"{name}.safetensors" in files},
        optimizers={
            name: OptimizerState(
                tensors=load_file(path / f"optimizer_{name}.safetensors"), settings=content["optimizers"][name]
            )
            for name in OPTIMIZERS
        },
        position=content["position"],
        counts=content["counts"],
        teacher=content["teacher"],
    )


def recipe_changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, one readable line each. Left out is what changes no number: output, pace, split."""
    changes = []
    for key in sorted(old.keys() | new.keys()):
        name = prefix + key
        if name in _FREE:
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += recipe_changes(before, after, f"{name}.")
        elif before != after:
            changes.append(f"{name}: {before} -> {after}")
    return changes


_FREE = {
    "output",
    "loop.iterations",
    "loop.threads",
    "loop.micro_batch",
    "loop.gradient_checkpointing",
    "loop.compile",
    "loop.channels_last",
    "loop.max_skipped",
    "prompts.text_cache",
}


def _write(folder: Path, state: RunState, recipe: Recipe) -> None:
    tensors = {f"{name}.safetensors": weights for name, weights in state.networks.items()}
    tensors |= {f"optimizer_{name}.safetensors": saved.tensors for name, saved in state.optimizers.items()}
    for name, weights in tensors.items():
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)
    content = {
        "iteration": state.iteration,
        "recipe": recipe.model_dump(mode="json"),
        "position": state.position,
        "counts": state.counts,
        "teacher": state.teacher,
        "optimizers": {name: saved.settings for name, saved in state.optimizers.items()},
        "sha256": {name: _sha256(folder / name) for name in sorted(tensors)},
    }
    (folder / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    for path in [*folder.iterdir(), folder]:
        _fsync(path)


def _prune(folder: Path, keep_last: int) -> None:
    best = read_best(folder)
    for old in checkpoints(folder)[:-keep_last]:
        if best is None or old.name != best["checkpoint"]:
            shutil.rmtree(old)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(content), encoding="utf-8")
    _fsync(scratch)
    scratch.replace(path)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
