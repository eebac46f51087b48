"""The trainer as real processes, forked from one that has imported it: started in a moment, killed at will."""

from __future__ import annotations

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

from training.pgsb import main

_CONTEXT = multiprocessing.get_context("forkserver")
PATIENCE = 300  # seconds, on the most loaded machine


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

    def wait_for(self, happened: Callable[[], object]) -> bool:
        """Whether it happened before the process ended."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if self.process.exitcode is not None:
                return bool(happened())
            assert time.monotonic() < deadline, f"waited too long; the process said:\n{self.said()}"
            time.sleep(0.005)
        return True

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """Its exit code; negative: the signal that killed it."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, f"it does not end; it said:\n{self.said()}"
        return self.process.exitcode

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def train(log: Path, *arguments: str, expect: int = 0, **settings: object) -> str:
    """Run to the end; returns what was said."""
    trainer = Trainer(log, *arguments, **settings)
    code = trainer.end()
    assert code == expect, f"exit code {code}:\n{trainer.said()[-3000:]}"
    return trainer.said()


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


def _run(log: Path, arguments: list[str], slow: float, alter: str, environment: dict[str, str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
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
