"""A run's checkpoints: written atomically, and verified before they are used.

A checkpoint is a folder `step-00000100/`. It is written under a temporary name, flushed to disk and renamed. Its file
`sha256sums.txt` holds the hash of every other file (`sha256sum -c` can check it), so a damaged checkpoint is detected,
and the one before it is used. Each network has a file of its own. Tensors are stored as safetensors, never as pickles.
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
NOISE = 0.1  # of a distance from the teacher: two sets of its own samples differ by 0.1 to 0.2
# Fields of RunState that are stored in state.json.
_VALUES = ("iteration", "distance", "diversity", "counts", "position", "teacher")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run needs to resume, besides its recipe. Random numbers depend on seed and iteration only.

    networks: trained weights of "student", "lora" (the LoRA teacher) and "ema" (averaged student; absent without
    averaging). optimizers: "student", "lora". position: of the prompts. counts: of the run so far. teacher: fingerprint
    of the teacher's weights. distance, diversity: of the student's samples, compared to the teacher's, if measured
    (`latent_stats.compare`).
    """

    iteration: int
    networks: dict[str, StateDict]
    optimizers: dict[str, OptimizerState]
    position: dict[str, Any]
    counts: dict[str, int]
    teacher: str
    distance: float | None = None
    diversity: float | None = None

    @property
    def averaged(self) -> StateDict:
        """The weights to export: averaged ones, if there are any."""
        return self.networks.get("ema", self.networks["student"])


def save_state(folder: Path, state: RunState, recipe: Recipe) -> Path:
    """Write `state` below `folder` (the run's checkpoints/) atomically, then delete old ones as the recipe says.

    Raises:
        OSError: it cannot be written, for instance because the disk is full; what was written is removed.
    """
    final = folder / f"step-{state.iteration:08d}"
    if (final / _STATE).is_file():  # already saved: the run was stopped right after a save
        return final
    temporary = _temporary(final)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, state, recipe)
        if final.exists():
            rename_damaged(final)
        os.rename(temporary, final)
        _fsync(folder)
        _fsync(folder.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # safetensors raises this if the disk is full
            raise OSError(str(error)) from error
        raise
    try:
        _prune(folder, recipe.output.keep_last, keep_best=recipe.output.keep_best)
    except OSError as error:
        log.warning("an old checkpoint cannot be deleted: %s", error)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return [path for path in _steps(folder) if (path / _STATE).is_file()]


def iteration_of(checkpoint: Path) -> int:
    """Iterations that were done, from the checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def best_checkpoint(folder: Path) -> Path | None:
    """The newest intact checkpoint whose samples fall short of the teacher's by no more than the least plus `NOISE`.

    None if none was measured. A later one that is as good, as far as can be told, has learnt more; one that collapsed
    is far behind an earlier one. A damaged one is skipped, with a warning.
    """
    measured = _shortfalls(folder)
    while measured:
        least = min(measured.values())
        path = max(path for path, shortfall in measured.items() if shortfall <= least + NOISE)
        try:
            check_intact(path)
            return path
        except ValueError as error:
            log.warning("checkpoint %s is damaged (%s); trying another", path.name, error)
            del measured[path]
    return None


def _shortfalls(folder: Path) -> dict[Path, float]:
    """sqrt(distance^2 + lost diversity^2) of each checkpoint that was compared to the teacher, oldest first.

    Diversity counts because a student that draws one image for each prompt may be near its teacher. Checkpoints of
    older versions have none; they count only if no other was compared.
    """
    found: dict[bool, dict[Path, float]] = {True: {}, False: {}}
    for path in checkpoints(folder):
        try:
            content = json.loads((path / _STATE).read_text(encoding="utf-8"))
            distance, diversity = content["distance"], content.get("diversity")
            if distance is not None and math.isfinite(distance):
                lost = 0.0 if diversity is None else max(0.0, 1.0 - diversity)
                found[diversity is not None][path] = math.hypot(distance, lost)
        except (OSError, KeyError, TypeError, ValueError):  # damaged; `check_intact` gives the reason
            continue
    return found[True] or found[False]


def newest_intact(folder: Path) -> Path | None:
    """The newest intact checkpoint, or None; logs a warning for each damaged one that it skips."""
    for path in reversed(_steps(folder)):
        try:
            check_intact(path)
            return path
        except ValueError as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before it", path.name, error)
    return None


def make_ready(folder: Path) -> Path | None:
    """The checkpoint to resume from; None if there are no checkpoints. Call it with the run folder locked.

    Renames damaged checkpoints, so that they do not count as kept ones.

    Raises:
        ValueError: all checkpoints are damaged.
    """
    intact = newest_intact(folder)
    for path in _steps(folder):
        if intact is None or path > intact:
            rename_damaged(path)
    damaged = sorted(path.name for path in folder.glob("damaged-step-*"))
    if damaged and intact is None:
        raise ValueError(
            f"all checkpoints in {folder} are damaged ({', '.join(damaged)}), so the run cannot be resumed; restore "
            "one from a copy, or start from the beginning without --resume"
        )
    return intact


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished checkpoints of a process that was killed while saving. Call it with the run folder locked."""
    for left in folder.glob(_temporary(folder / "step-*").name):
        shutil.rmtree(left, ignore_errors=True)


def rename_damaged(path: Path) -> None:
    """Rename a damaged checkpoint so that it is ignored; its files are kept for inspection."""
    target = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(path, target)
    log.warning("%s was renamed to %s", path.name, target.name)


def check_intact(path: Path) -> dict[str, Any]:
    """Verify every file's hash.

    Returns:
        The content of state.json.

    Raises:
        ValueError: a file is missing, or its hash differs.
    """
    try:
        lines = (path / _SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        for name, digest in sums.items():
            if not name or _sha256(path / name) != digest:
                raise ValueError(f"{name or _SUMS} differs from its hash")
        content = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if absent := {_STATE, *content["networks"].values(), *content["optimizers"].values()} - sums.keys():
            raise ValueError(f"{min(absent)} is missing")
    except OSError as error:
        raise ValueError(f"{Path(error.filename or path).name}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{_STATE} is not a run's state ({error!r})") from error
    return content


def load_state(path: Path) -> RunState:
    """Load a checkpoint folder that was verified."""
    content = json.loads((path / _STATE).read_text(encoding="utf-8"))
    return RunState(
        networks={name: load_file(path / file) for name, file in content["networks"].items()},
        optimizers={
            name: OptimizerState(tensors=load_file(path / file), settings=content["settings"][name])
            for name, file in content["optimizers"].items()
        },
        **{name: content[name] for name in _VALUES if name in content},  # older versions had no diversity
    )


def _write(folder: Path, state: RunState, recipe: Recipe) -> None:
    files = {name: f"{name}.safetensors" for name in state.networks}
    moments = {name: f"optimizer_{name}.safetensors" for name in state.optimizers}
    tensors = {files[name]: weights for name, weights in state.networks.items()}
    tensors |= {moments[name]: saved.tensors for name, saved in state.optimizers.items()}
    for name, weights in tensors.items():
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)
    content = {
        **{name: getattr(state, name) for name in _VALUES},
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
    measured = _shortfalls(folder) if keep_best else {}
    best = min(reversed(measured), key=measured.__getitem__, default=None)
    for old in checkpoints(folder)[:-keep_last]:
        if old != best:
            shutil.rmtree(_temporary(old), ignore_errors=True)
            os.rename(
                old, _temporary(old)
            )  # renamed first, so that a half-deleted folder does not look like a checkpoint
            shutil.rmtree(_temporary(old))


def _steps(folder: Path) -> list[Path]:
    """All checkpoints, also incomplete ones, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot flush folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
