"""Describes a run in its folder: the resolved recipe, the environment, and a README of the folder's files."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jinja2 import Template

from snoopi_core.formats.atomic import write_atomically
from training.config import ROOT, Recipe, package_versions
from training.config.evaluation import Evaluate

_PACKAGES = (
    *("torch", "accelerate", "diffusers", "transformers", "peft", "safetensors", "datasets"),
    *("tensorboard", "wandb", "bitsandbytes", "open_clip_torch"),
)

_README = Path(__file__).with_name("README.txt.jinja")


def describe_run(folder: Path, recipe: Recipe, accelerator: Accelerator, done: int) -> None:
    """Write recipe.toml, README.txt, and environment.json, to whose sessions it adds one that starts after `done`
    iterations."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "recipe.toml", recipe.to_toml())
    command, processes = command_line(), accelerator.num_processes
    session = {
        "iteration": done,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": str(Path.cwd()),
        "command": command,
        "pid": os.getpid(),
    }
    sessions = [*_sessions(folder / "environment.json"), session]
    content = environment(accelerator) | {"sessions": sessions}
    write_atomically(folder / "environment.json", json.dumps(content, indent=1) + "\n")
    text = Template(_README.read_text(encoding="utf-8"), keep_trailing_newline=True).render(
        title=recipe.output.title,
        folder=shlex.quote(str(folder)),
        stop=how_to_stop(processes),
        keep_last=recipe.output.keep_last,
        keep_best=recipe.output.keep_best,
        processes=processes,
    )
    write_atomically(folder / "README.txt", text)


def hints(recipe: Recipe, prediction_type: str) -> list[str]:
    """What the user may not have meant, for a run's opening lines and the dry run."""
    return [hint for hint in (_lora_loss_hint(recipe, prediction_type), _unused_evaluation(recipe.evaluate)) if hint]


def _unused_evaluation(section: Evaluate) -> str:
    """Settings of an evaluation that never happens. A hint and no error: evaluate.every=0 also turns one off."""
    known = Evaluate.model_fields.items()
    given = [f"evaluate.{name}" for name, setting in known if getattr(section, name) != setting.default]
    if section.every or not given:
        return ""
    return (
        f"{', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect, since evaluate.every is 0: the student "
        "is not evaluated while it is trained; evaluate.every=2000 evaluates it every 2,000 iterations"
    )


def _lora_loss_hint(recipe: Recipe, prediction_type: str) -> str:
    """What the paper's loss of the LoRA teacher, made for networks that predict eps, does with one that predicts v;
    empty where that does not matter.

    eps = sigma_t x_t + alpha_t v, so an error of v is alpha_t times that as one of eps, and its square in
    mean((alpha_t (eps_psi - eps))^2) has the weight alpha_t^4.
    """
    if prediction_type != "v_prediction" or recipe.lora.loss != "eps":
        return ""
    return (
        "the teacher predicts v, and lora.loss=eps, the paper's, weighs the LoRA teacher's errors of v by alpha_t^4: "
        "it learns little at high noise levels, where the content of a picture is decided, and the student may draw "
        "one picture for most prompts. lora.loss=native weighs all levels equally, and kept the variety where it was "
        "measured (training/README.md)"
    )


def how_to_stop(processes: int) -> str:
    """Instructions to stop the run. A launcher of several processes kills them 30 seconds after it is told to stop."""
    if processes == 1:
        return f"Ctrl-C, or kill -TERM {os.getpid()}: it saves and ends; a second Ctrl-C ends it at once"
    return (
        f"kill -TERM {os.getpid()} on the first machine (the pid changes with every start): all processes save and "
        "end. The launcher then reports exit status 143, which is not an error. Ctrl-C stops the launcher, which "
        "leaves the processes 30 seconds, too few to save a large model"
    )


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What the numbers may depend on: versions, device, processes, commit."""
    device = accelerator.device
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "processes": accelerator.num_processes,
        "distributed": accelerator.distributed_type.value,
        "mixed_precision": accelerator.mixed_precision,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }
    return found | package_versions(*_PACKAGES)


def command_line() -> str:
    """The shell command that started this process; with `accelerate launch`, the command that it launched."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def _sessions(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["sessions"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _commit() -> str | None:
    """The project's commit, marked -dirty if files were changed since; None if it is not a git checkout."""
    if not (ROOT / ".git").exists():
        return None
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(describe, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    return None
