"""Describes a run in its folder: the resolved recipe, the environment, and a README of the folder's files."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from snoopi_core.formats.atomic import write_atomically
from training.config import ROOT, Recipe

_PACKAGES = (
    *("torch", "accelerate", "diffusers", "transformers", "peft", "safetensors", "datasets"),
    *("tensorboard", "wandb", "bitsandbytes", "open_clip_torch"),
)

README = """\
A run of `python -m training.pgsb`: {title}

recipe.toml        every setting, resolved; can be used as a recipe: --recipe {quoted}/recipe.toml
environment.json   machine, versions and command line, with an entry in "sessions" for each start
metrics.jsonl      metrics, one line for each logged iteration (see below)
report.html        curves, warnings and all sample grids, for a browser
samples/           step-*.png: the student's images below the teacher's, for the same prompts and noise;
                   prompts.txt: the prompts in full; teacher.safetensors: the teacher's images, drawn once
tensorboard/       tensorboard --logdir {quoted}/tensorboard
checkpoints/       the newest {keep_last}{best}
export/            student.safetensors, once the run is finished

stop     {stop}
resume   python -m training.pgsb --resume {quoted}{launched}
go back  move the newer folders out of checkpoints/ and resume: the run continues from the newest that is left
export   python -m training.export {quoted} --out student.safetensors

Metrics of the logged iteration:
  vsd, clip, lora           losses: two of the student (clip without its weight), and the LoRA teacher's
  kappa                     the random guidance scale; kappa_0, kappa_1, ... if each process draws its own
  gap                       mean |g|, the difference of the two teachers' scores; gap_t20: for timesteps from 20 on
  student_grad, lora_grad   gradient norms, before clipping
  skipped                   updates so far that were skipped because the loss or gradient was not finite
  x0_mean, x0_std           of the student's latents in training; x0_std_c0: of channel 0
  x0_std_of_teacher         x0_std relative to the teacher's samples
  x0_far                    share of values more than 4 standard deviations from their channel's mean: burnt spots
  x0_diversity              how much these latents differ (1: like independent noise)
  iterations_per_s          since the previous line, sampling and saving included
  memory_gib                peak GPU memory of tensors; without a GPU, memory of the process
and at a sampling point, of the averaged student compared to the teacher:
  sample_distance           distance of its images (0.1 to 0.2: like other images of the teacher, 1: a flat image)
  sample_diversity          how much images of one prompt differ between seeds (1: like the teacher's)
  sample_diversity_prompts  the same between prompts
  sample_std                standard deviation of the latents (1: like the teacher's)
"""


def describe_run(folder: Path, recipe: Recipe, accelerator: Accelerator, done: int) -> None:
    """Write recipe.toml, environment.json and README.txt. The sessions in environment.json are kept.

    Args:
        done: iterations that the run has done before this start.
    """
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
    text = README.format(
        title=recipe.output.title,
        quoted=shlex.quote(str(folder)),
        stop=how_to_stop(processes),
        keep_last=recipe.output.keep_last,
        best=", and the one nearest to the teacher" if recipe.output.keep_best else "",
        launched="" if processes == 1 else f" (with accelerate launch, on {processes} processes as before)",
    )
    write_atomically(folder / "README.txt", text)


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
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The shell command that started this process; with `accelerate launch`, the command that it launched."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


def _sessions(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["sessions"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _commit() -> str | None:
    """The project's commit, marked -dirty if files were changed since; None if it is not a git checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip()
