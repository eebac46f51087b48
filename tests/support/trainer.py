"""The trainer as real processes, forked from one that has imported it: started in a moment, killed at will."""

from __future__ import annotations

import io
import json
import multiprocessing
import multiprocessing.forkserver
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from training.distill.step import Distillation
from training.pgsb import main
from training.trainer.launch import start  # noqa: F401 - once, in the process that is forked
from training.trainer.run_folder.checkpoint import checkpoints

_CONTEXT = multiprocessing.get_context("forkserver")
PATIENCE = 120  # seconds, on the most loaded machine


class Trainer:
    """One process of a run; what it says is in `log`.

    slow: seconds that each flush to disk takes, which makes a save long enough to be hit. alter: name of a function of
    this module that changes something in the process before it starts.
    """

    def __init__(self, log: Path, *arguments: str, slow: float = 0, alter: str = "", **environment: str) -> None:
        self.log = log
        _CONTEXT.set_forkserver_preload(["trainer"])
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            multiprocessing.forkserver.ensure_running()
        self.process = _CONTEXT.Process(target=_run, args=(log, list(arguments), slow, alter, environment))
        self.process.start()

    def wait_for(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if self.process.exitcode is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(
                    f"it did not happen; exit code {self.process.exitcode}; said:\n{self.said()[-2000:]}"
                )
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self, expect: int = 0) -> str:
        """What was said by a process that ends with this exit code; negative: the signal that killed it."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code != expect:
            self.process.kill()
            raise AssertionError(f"exit code {code}, expected {expect}; said:\n{self.said()[-2000:]}")
        return self.said()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def train(log: Path, *arguments: str, expect: int = 0, **settings: object) -> str:
    """Run to the end; what was said."""
    return Trainer(log, *arguments, **settings).end(expect)


def together(log: Path, *arguments: str, processes: int = 2, alter: str = "") -> list[Trainer]:
    """The processes of one distributed run (gloo), as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        Trainer(log.with_suffix(f".{n}"), *arguments, alter=alter, **shared, RANK=str(n), LOCAL_RANK=str(n))
        for n in range(processes)
    ]


def iterations(folder: Path) -> list[int]:
    """What metrics.jsonl holds, without a line that is cut short."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line)["iteration"] for line in lines]


def newest(folder: Path) -> int:
    """The newest checkpoint, by its name alone."""
    found = checkpoints(folder / "checkpoints")
    return int(found[-1].name.removeprefix("step-")) if found else 0


def tensor_files(folder: Path, name: str = "") -> dict[str, bytes]:
    """Of the newest checkpoint, or the named one: its tensors, bit for bit."""
    place = folder / "checkpoints" / name if name else checkpoints(folder / "checkpoints")[-1]
    return {path.name: path.read_bytes() for path in place.glob("*.safetensors")}


def assert_same(folder: Path, other: Path) -> None:
    assert newest(folder) == newest(other)
    ours, theirs = tensor_files(folder), tensor_files(other)
    names = ("student", "ema", "lora", "optimizer_student", "optimizer_lora")
    assert ours.keys() == theirs.keys() == {f"{name}.safetensors" for name in names}
    assert not [name for name in ours if ours[name] != theirs[name]]


def _run(log: Path, arguments: list[str], slow: float, alter: str, environment: dict[str, str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    if slow:
        flush = os.fsync
        os.fsync = lambda handle: (time.sleep(slow), flush(handle))[1]
    if alter:
        globals()[alter]()
    sys.exit(main(arguments))


def with_a_full_log() -> None:
    """What the first process says goes to a disk without room."""
    if os.environ["RANK"] == "0":
        sys.stderr = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)


def nan_on_the_second() -> None:
    """In the second process's second iteration the loss is not a number; its gradient is as ever."""
    original, calls = Distillation.student_loss, []

    def student_loss(self: Distillation, *args: object) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        loss, gap = original(self, *args)
        spoilt = os.environ["RANK"] == "1" and len(calls) == 2
        return (loss + float("nan") if spoilt else loss), gap

    Distillation.student_loss = student_loss
