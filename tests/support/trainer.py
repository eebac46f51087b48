"""Run the trainer's command in other processes; see processes.py."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from processes import TIMEOUT, rank_environments, set_up, start

from training.distill.step import Distillation
from training.pgsb import main
from training.trainer import trainer
from training.trainer.run_folder import parts
from training.trainer.run_folder.checkpoint import checkpoints

_LOG = "SNOOPI_TEST_LOG"  # environment variable of a process: its log


class Trainer:
    """One process of a run; its output is in `log`.

    alter: changes the process before it starts; one of the functions at the end of this module.
    command: the main function of another command.
    """

    def __init__(
        self,
        log: Path,
        *arguments: str,
        alter: Callable[[], None] | None = None,
        command: Callable[[list[str]], int] = main,
        **environment: str,
    ) -> None:
        self.log = log
        self.process = start(_run, log, command, list(arguments), alter, environment)

    def wait_for(self, happened: Callable[[], object]) -> None:
        """Wait until `happened()` is true. Raises AssertionError if the process ends before that."""
        deadline = time.monotonic() + TIMEOUT
        while not happened():
            if self.process.exitcode is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(
                    f"it did not happen; exit code {self.process.exitcode}; output:\n{self.output()[-2000:]}"
                )
            time.sleep(0.005)

    def wait_for_pause(self) -> None:
        """Wait until `paused_after` or `paused_before_export` has paused the process."""
        self.wait_for(_file_of(self.log, "paused").exists)

    def unpause(self) -> None:
        """Continue a paused process."""
        _file_of(self.log, "paused").unlink()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self, expect: int = 0) -> str:
        """Wait for the end, assert the exit code (negative for a signal) and return the output."""
        self.process.join(TIMEOUT)
        code = self.process.exitcode
        if code != expect:
            self.process.kill()
            raise AssertionError(f"exit code {code}, expected {expect}; output:\n{self.output()[-2000:]}")
        return self.output()

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def train(log: Path, *arguments: str, expect: int = 0, **settings: object) -> str:
    """Run to the end and return the output."""
    return Trainer(log, *arguments, **settings).end(expect)


def start_distributed(log: Path, *arguments: str, processes: int = 2, **settings: object) -> list[Trainer]:
    """Start the processes of one distributed run (gloo)."""
    return [
        Trainer(log.with_suffix(f".{rank}"), *arguments, **settings, **environment)
        for rank, environment in enumerate(rank_environments(processes))
    ]


def iterations(folder: Path) -> list[int]:
    """Iterations in metrics.jsonl, without an incomplete last line."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line)["iteration"] for line in lines]


def newest_iteration(folder: Path) -> int:
    """Iteration of the newest checkpoint, by its name; 0 if there is none."""
    found = checkpoints(folder / "checkpoints")
    return int(found[-1].name.removeprefix("step-")) if found else 0


def tensor_files(folder: Path, name: str = "") -> dict[str, bytes]:
    """Content of the tensor files of the newest checkpoint, or of the named one, by file name."""
    place = folder / "checkpoints" / name if name else checkpoints(folder / "checkpoints")[-1]
    return {path.name: path.read_bytes() for path in place.glob("*.safetensors")}


def assert_same(folder: Path, other: Path) -> None:
    assert newest_iteration(folder) == newest_iteration(other)
    ours, theirs = tensor_files(folder), tensor_files(other)
    names = ("student", "ema", "lora", "optimizer_student", "optimizer_lora")
    assert ours.keys() == theirs.keys() == {f"{name}.safetensors" for name in names}
    assert not [name for name in ours if ours[name] != theirs[name]]


def _run(
    log: Path,
    command: Callable[[list[str]], int],
    arguments: list[str],
    alter: Callable[[], None] | None,
    environment: dict[str, str],
) -> None:
    set_up(log, environment | {_LOG: str(log)})
    if alter is not None:
        alter()
    sys.exit(command(arguments))


def _file_of(log: Path, name: str) -> Path:
    return log.with_name(f"{log.name}.{name}")


def _pause() -> None:
    """In the process: wait until `Trainer.unpause` is called."""
    paused = _file_of(Path(os.environ[_LOG]), "paused")
    paused.touch()
    while paused.exists():
        time.sleep(0.005)


def paused_after(*iterations: int) -> None:
    """Pause in the middle of the iteration after each of these (counted from the start or resume)."""
    original, calls = Distillation.run, []

    def run(self: Distillation, *args: object) -> object:
        if len(calls) in iterations:
            _pause()
        calls.append(1)
        return original(self, *args)

    Distillation.run = run


def paused_before_export() -> None:
    """Pause after the last checkpoint."""
    original = trainer.Trainer.export

    def export(self: trainer.Trainer) -> object:
        _pause()
        return original(self)

    trainer.Trainer.export = export


def signalled_in_save(folder: Path, number: int, flush: int) -> None:
    """The process sends itself a signal at the given flush to disk (from 1) while it saves a checkpoint."""
    original, calls = os.fsync, []

    def fsync(handle: int) -> None:
        if any(folder.glob("checkpoints/.step-*.tmp")):
            calls.append(1)
            if len(calls) == flush:
                os.kill(os.getpid(), number)
        original(handle)

    os.fsync = fsync


def with_a_full_log() -> None:
    """The first process writes its log to a full disk."""
    if os.environ["RANK"] == "0":
        sys.stderr = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)


def nan_on_the_second() -> None:
    """In the second process's second iteration the loss is NaN; its gradient is not."""
    original, calls = Distillation.student_loss, []

    def student_loss(self: Distillation, *args: object) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        loss, gap = original(self, *args)
        spoilt = os.environ["RANK"] == "1" and len(calls) == 2
        return (loss + float("nan") if spoilt else loss), gap

    Distillation.student_loss = student_loss


def with_fsdp() -> None:
    """Use FSDP on CPUs: accelerate has the code, but chooses it on GPUs only."""
    from fsdp_on_cpu import Accelerator

    import training.trainer.distributed.accelerator

    training.trainer.distributed.accelerator.Accelerator = Accelerator


def full_on_the_second() -> None:
    """The second process cannot write its part of the first checkpoint."""
    with_fsdp()
    original, calls = parts.write_tensors, []

    def write_tensors(folder, state, part=""):
        calls.append(part)
        if part == ".1-of-2" and len(calls) == 1:
            raise OSError(28, "No space left on device")
        return original(folder, state, part)

    parts.write_tensors = write_tensors


def on_two_disks() -> None:
    """The second process does not see what the first writes."""
    with_fsdp()
    trainer.all_see = lambda accelerator, file: False
