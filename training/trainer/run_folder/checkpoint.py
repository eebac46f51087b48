"""A run's checkpoints: written whole or not at all, and never trusted unread.

A checkpoint is a folder `step-00000100/`. It is written under a temporary name, flushed to disk and renamed. The hash
of every file stands in `sha256sums.txt` (`sha256sum -c` reads it), so a damaged checkpoint is noticed and the one
before it is used. Each network is saved under its own name. All tensors are safetensors; nothing is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from snoopi_core.formats.layouts import StateDict
from training.config import Recipe
from training.trainer.distributed.state_dicts import OptimizerState

log = logging.getLogger(__name__)
_STATE, _SUMS = "state.json", "sha256sums.txt"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run needs to go on, beside its recipe. All random numbers follow from seed and iteration.

    networks: student, its running mean (ema, absent without one) and LoRA teacher (lora), what is trained of each.
    optimizers: student, lora. position: of the prompts. counts: whatever the run has counted so far. teacher:
    fingerprint of the teacher's weights. distance: the student's from the teacher, where it was measured.
    """

    iteration: int
    networks: dict[str, StateDict]
    optimizers: dict[str, OptimizerState]
    position: dict[str, Any]
    counts: dict[str, int]
    teacher: str
    distance: float | None = None

    @property
    def averaged(self) -> StateDict:
        """What is exported: the running mean, where there is one."""
        return self.networks.get("ema", self.networks["student"])


def save_state(folder: Path, state: RunState, recipe: Recipe) -> Path:
    """Write `state` below `folder` (the run's checkpoints/), atomically; then drop the oldest beyond `keep_last`.

    Raises:
        OSError: it cannot be written, the disk being full for instance; what was written of it is removed.
    """
    final = folder / f"step-{state.iteration:08d}"
    if (final / _STATE).is_file():  # a stop right after a save
        return final
    temporary = _temporary(final)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, state, recipe)
        if final.exists():
            set_aside(final)
        os.rename(temporary, final)
        _fsync(folder)
        _fsync(folder.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # what safetensors makes of a full disk
            raise OSError(str(error)) from error
        raise
    try:
        _prune(folder, recipe.output.keep_last, keep_best=recipe.output.keep_best)
    except OSError as error:
        log.warning("an old checkpoint cannot be removed: %s", error)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return [path for path in _steps(folder) if (path / _STATE).is_file()]


def iteration_of(checkpoint: Path) -> int:
    """How many iterations a checkpoint's run had done, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def best_checkpoint(folder: Path) -> Path | None:
    """The one whose student is nearest to the teacher, the newest of equals; None where no distance was measured."""
    measured = []
    for path in checkpoints(folder):
        try:
            distance = json.loads((path / _STATE).read_text(encoding="utf-8"))["distance"]
            if distance is not None and math.isfinite(distance):
                measured.append((-distance, path))
        except (OSError, KeyError, TypeError, ValueError):  # damaged; `check_whole` tells more
            continue
    return max(measured)[1] if measured else None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, with a warning for each that is not; None when there is none."""
    for path in reversed(_steps(folder)):
        try:
            check_whole(path)
            return path
        except ValueError as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before it", path.name, error)
    return None


def make_ready(folder: Path) -> Path | None:
    """The checkpoint from which a run goes on; None when there is none. For the process that holds the run's folder.

    Sets damaged checkpoints aside, so that they do not count among those that are kept.

    Raises:
        ValueError: there are checkpoints, but none is whole.
    """
    whole = newest_whole(folder)
    for path in _steps(folder):
        if whole is None or path > whole:
            set_aside(path)
    damaged = sorted(path.name for path in folder.glob("damaged-step-*"))
    if damaged and whole is None:
        raise ValueError(
            f"no checkpoint in {folder} is whole ({', '.join(damaged)}), so there is nothing to resume; put a copy of "
            "one in place, or start anew without --resume"
        )
    return whole


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill in the middle of a save left behind. For the process that holds the run's folder."""
    for left in folder.glob(_temporary(folder / "step-*").name):
        shutil.rmtree(left, ignore_errors=True)


def set_aside(path: Path) -> None:
    """Rename a checkpoint so that it counts no more; what it holds is kept for a person to look at."""
    target = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(path, target)
    log.warning("%s was set aside as %s", path.name, target.name)


def check_whole(path: Path) -> dict[str, Any]:
    """What state.json says, after every file's hash was compared.

    Raises:
        ValueError: a file is missing or its hash differs.
    """
    try:
        lines = (path / _SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        for name, digest in sums.items():
            if not name or _sha256(path / name) != digest:
                raise ValueError(f"{name or _SUMS} is not what was written")
        content = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if absent := {_STATE, *content["networks"].values(), *content["optimizers"].values()} - sums.keys():
            raise ValueError(f"{min(absent)} is missing")
    except OSError as error:
        raise ValueError(f"{Path(error.filename or path).name}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{_STATE} is not of a run ({error!r})") from error
    return content


def load_state(path: Path) -> RunState:
    """One checkpoint folder that was found whole."""
    content = json.loads((path / _STATE).read_text(encoding="utf-8"))
    return RunState(
        iteration=content["iteration"],
        networks={name: load_file(path / file) for name, file in content["networks"].items()},
        optimizers={
            name: OptimizerState(tensors=load_file(path / file), settings=content["settings"][name])
            for name, file in content["optimizers"].items()
        },
        position=content["position"],
        counts=content["counts"],
        teacher=content["teacher"],
        distance=content["distance"],
    )


def _write(folder: Path, state: RunState, recipe: Recipe) -> None:
    files = {name: f"{name}.safetensors" for name in state.networks}
    moments = {name: f"optimizer_{name}.safetensors" for name in state.optimizers}
    tensors = {files[name]: weights for name, weights in state.networks.items()}
    tensors |= {moments[name]: saved.tensors for name, saved in state.optimizers.items()}
    for name, weights in tensors.items():
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)
    content = {
        "iteration": state.iteration,
        "distance": state.distance,
        "counts": state.counts,
        "position": state.position,
        "teacher": state.teacher,
        "recipe": recipe.model_dump(mode="json"),
        "networks": files,
        "optimizers": moments,
        "settings": {name: saved.settings for name, saved in state.optimizers.items()},
    }
    (folder / _STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in sorted([_STATE, *tensors]))
    (folder / _SUMS).write_text(sums, encoding="utf-8")
    for path in [*folder.iterdir(), folder]:
        _fsync(path)


def _prune(folder: Path, keep_last: int, *, keep_best: bool) -> None:
    best = best_checkpoint(folder) if keep_best else None
    for old in checkpoints(folder)[:-keep_last]:
        if old != best:
            shutil.rmtree(_temporary(old), ignore_errors=True)
            os.rename(old, _temporary(old))  # a kill in the middle leaves nothing that looks like a checkpoint
            shutil.rmtree(_temporary(old))


def _steps(folder: Path) -> list[Path]:
    """Checkpoints, complete or not, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows flushes no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
