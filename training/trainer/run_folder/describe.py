"""What a run folder says about itself: the recipe as resolved, where and with what it runs, and what its files are."""

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

recipe.toml        every setting, as resolved; it is a recipe itself: --recipe {quoted}/recipe.toml
environment.json   machine, versions and command line; one entry in "sessions" for each start
metrics.jsonl      figures, one line for each logged iteration (see below)
report.html        curves, warnings and all sample grids on one page; open it in a browser
samples/           step-*.png: the student's images below the teacher's, for the same prompts and noise;
                   prompts.txt: the prompts in full; teacher.safetensors: the teacher's images, drawn once
tensorboard/       tensorboard --logdir {quoted}/tensorboard
checkpoints/       the newest {keep_last}, {best}each whole or absent
export/            student.safetensors, once the run is done

stop     {stop}
resume   python -m training.pgsb --resume {quoted}{launched}
go back  move the newer folders out of checkpoints/, and resume: it goes on from the newest that is left
export   python -m training.export {quoted} --out student.safetensors

Figures, each of the iteration that was logged:
  vsd, clip, lora           losses: the student's two (clip before its weight), and the LoRA teacher's
  kappa                     the guidance scale that was drawn; kappa_0, kappa_1, ... where each process draws its own
  gap                       mean |g|, the difference of the two teachers' scores; gap_t20: of timesteps from 20 on
  student_grad, lora_grad   gradient norms, before clipping
  skipped                   iterations so far whose loss or gradient was not finite, so that nothing was updated
  x0_mean, x0_std           of the latents that the student drew for training; x0_std_c0: of channel 0
  x0_std_of_teacher         x0_std in units of the teacher's samples
  x0_far                    share of values more than 4 standard deviations from their channel's mean: burnt spots
  x0_diversity              how much these latents differ (1: as independent noise)
  iterations_per_s          since the line before, sampling and saving included
  memory_gib                the most that tensors took on the GPU so far; without one, what the process takes
and at a sampling point, of the averaged student beside the teacher:
  sample_distance           how far its images are from the teacher's (0.1 to 0.2: as its own, 1: a flat picture)
  sample_diversity          how much images of one prompt differ between seeds (1: as much as the teacher's)
  sample_diversity_prompts  the same between prompts
  sample_std                strength of the latents (1: the teacher's)
"""


def describe_run(folder: Path, recipe: Recipe, accelerator: Accelerator, done: int) -> None:
    """Write recipe.toml, environment.json and README.txt; an older environment's sessions are kept.

    Args:
        done: iterations that are done when this session starts.
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
        best="and the one nearest to the teacher, " if recipe.output.keep_best else "",
        launched="" if processes == 1 else f" (started by accelerate launch, as it was, on {processes} processes)",
    )
    write_atomically(folder / "README.txt", text)


def how_to_stop(processes: int) -> str:
    """In words. What launches several processes kills them half a minute after it is told to stop."""
    if processes == 1:
        return f"Ctrl-C, or kill -TERM {os.getpid()}: it saves, and ends; a second Ctrl-C ends it at once"
    return (
        f"kill -TERM {os.getpid()} on the first machine (the pid is of this start): all processes save, and end. "
        "The launcher then tells of exit status 143: that is the stop, no error. Ctrl-C stops the launcher, which "
        "leaves them 30 seconds, too few to save a large model"
    )


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What the figures may depend on, flat: versions, device, processes, commit."""
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
    """How this process was started, fit for a shell. Under `accelerate launch`, what it was told to launch."""
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
    """Of the project, where it is a git checkout, with a mark where files were changed since."""
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
