"""Trains a student in a process of its own, for studies that compare settings."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from experiments.json_file import read_json, write_json
from training import export
from training.config import ROOT
from training.models.backbone import Backbone
from training.models.loading import load_backbone


def run_trainer(
    folder: Path, recipe: str, overrides: Sequence[str], settings: Sequence[str], *, iterations: int, threads: int
) -> str:
    """Train, or continue to train, in `folder`, with the output in train.log; a folder of other overrides is left
    unchanged.

    Args:
        overrides: what the study varies.
        settings: all settings, with `overrides`, the length and the folder.

    Returns:
        "", or what went wrong.
    """
    what = {"recipe": recipe, "overrides": list(overrides)}
    before = read_json(folder / "cell.json")
    if before not in ({}, what):
        return f"{folder} was run with {before}; this is {what}; choose another --out"
    if (length := cooled_length(folder)) not in (None, iterations):
        return (
            f"{folder} is a run of {length} iterations whose learning rate falls at its end (loop.cooldown): no part "
            f"or continuation of it is a run of {iterations}; choose another --out, or --iterations {length}"
        )
    if (folder / "checkpoints" / checkpoint_name(iterations)).is_dir():
        return ""
    print(f"{folder.name}: training", flush=True)
    write_json(folder / "cell.json", what)
    command = [sys.executable, "-m", "training.pgsb", "--cpu", "--resume", "--recipe", recipe, *settings]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    log = folder / "train.log"
    with open(log, "w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code == 0:
        return ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"exit status {code}: {lines[-1].strip() if lines else 'no output'}"


def cooled_length(folder: Path) -> int | None:
    """Iterations of the run in `folder` if it has a cooldown; then neither its continuation nor a checkpoint on its way
    is a run of another length."""
    file = folder / "recipe.toml"
    if not file.is_file():
        return None
    loop = tomllib.loads(file.read_text(encoding="utf-8"))["loop"]
    return loop["iterations"] if loop["cooldown"] else None


def open_checkpoint(checkpoint: Path) -> Backbone:
    """The averaged student of a checkpoint, loaded from an export as a user would get it.

    Raises:
        ValueError: the export failed; its error is on standard error.
    """
    file = checkpoint.parent.parent / "measured.safetensors"
    if export.main([str(checkpoint), "--out", str(file)]):
        raise ValueError(f"{checkpoint.name} could not be exported")
    model = load_backbone(str(file))
    file.unlink()
    return model


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint at iteration `step`."""
    return f"step-{step:08d}"
