"""A run's checkpoints, verified before they are used; write.py writes them.

A checkpoint is a folder `step-00000100/`. Its file `sha256sums.txt` holds the hash of every other file (`sha256sum -c`
can check it), so a damaged checkpoint is detected, and the one before it is used. Each network has a file of its own,
or under FSDP one of each process. Tensors are stored as safetensors, never as pickles.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from snoopi_core.formats.layouts import StateDict
from training.trainer.distributed.state_dicts import OptimizerState

log = logging.getLogger(__name__)
STATE, SUMS = "state.json", "sha256sums.txt"
NOISE = 0.1  # of a distance from the teacher: two sets of its own samples differ by 0.1 to 0.2
# Fields of RunState that are stored in state.json.
VALUES = ("iteration", "distance", "diversity", "counts", "position", "teacher")


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


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return [path for path in _steps(folder) if (path / STATE).is_file()]


def iteration_of(checkpoint: Path) -> int:
    """Iterations that were done, from the checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def best_checkpoint(folder: Path) -> Path | None:
    """The newest intact checkpoint whose samples fall short of the teacher's by no more than the least plus `NOISE`.

    None if none was measured. A later one that is as good, as far as can be told, has learnt more; one that collapsed
    is far behind an earlier one. A damaged one is skipped, with a warning.
    """
    measured = shortfalls(folder)
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


def shortfalls(folder: Path) -> dict[Path, float]:
    """sqrt(distance^2 + lost diversity^2) of each checkpoint that was compared to the teacher, oldest first.

    Diversity counts because a student that draws one image for each prompt may be near its teacher. Checkpoints of
    older versions have none; they count only if no other was compared.
    """
    found: dict[bool, dict[Path, float]] = {True: {}, False: {}}
    for path in checkpoints(folder):
        try:
            content = json.loads((path / STATE).read_text(encoding="utf-8"))
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
    for left in folder.glob(temporary_of(folder / "step-*").name):
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
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        for name, digest in sums.items():
            if not name or sha256(path / name) != digest:
                raise ValueError(f"{name or SUMS} differs from its hash")
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        named = [*content["networks"].values(), *content["optimizers"].values()]
        if absent := {STATE, *chain.from_iterable(map(_files, named))} - sums.keys():
            raise ValueError(f"{min(absent)} is missing")
    except OSError as error:
        raise ValueError(f"{Path(error.filename or path).name}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{STATE} is not a run's state ({error!r})") from error
    return content


def load_state(path: Path) -> RunState:
    """Load a checkpoint folder that was verified."""
    content = json.loads((path / STATE).read_text(encoding="utf-8"))
    return RunState(
        networks={name: _load(path, file) for name, file in content["networks"].items()},
        optimizers={
            name: OptimizerState(tensors=_load(path, file), settings=content["settings"][name])
            for name, file in content["optimizers"].items()
        },
        **{name: content[name] for name in VALUES if name in content},  # older versions had no diversity
    )


def _files(entry: str | list[str]) -> list[str]:
    """The files of a network in state.json: one, or one of each process that wrote its part."""
    return [entry] if isinstance(entry, str) else entry


def _load(folder: Path, entry: str | list[str]) -> StateDict:
    """Tensors of one file; or of several, which hold the rows of a tensor in their order, or the first all of it."""
    parts = [load_file(folder / name) for name in _files(entry)]
    if len(parts) == 1:
        return parts[0]
    rows = {key: [part[key] for part in parts if key in part] for key in parts[0]}
    return {key: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for key, tensors in rows.items()}


def _steps(folder: Path) -> list[Path]:
    """All checkpoints, also incomplete ones, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def temporary_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
