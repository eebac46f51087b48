"""`python -m training.evaluate` in this process and in others, and what it leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

import training.evaluate.generate.command  # noqa: F401 - once, in the process that is forked
from training.evaluate.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
STUDENT = str(ROOT / "models" / "snoopi-shapes-student.safetensors")
PAIRS = """[
  {"positive": "a shape in the center", "negative": "red"},
  {"positive": "a green shape", "negative": "triangle"},
  {"positive": "a red shape", "negative": "left"}
]"""


def evaluate(*words: object) -> None:
    """Run a command, which must succeed."""
    assert main([str(word) for word in words]) == 0


def refused(capsys, *words: object) -> str:
    """Run a command, which must fail; returns what it says."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert "error: " in said, said
    return said[said.index("error: ") :]


def started(log: Path, *words: object, processes: int = 1) -> list[multiprocessing.Process]:
    """A command as a process of its own, or as several of one run (gloo), as torchrun would start them; what they say
    is in `log`. Forked from one process that has imported it all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["evaluation"])
    shared = {"ACCELERATE_USE_CPU": "true"}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        shared |= {"GLOO_SOCKET_IFNAME": "lo"}
    running = []
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        for n in range(processes):
            own = shared | ({"RANK": str(n), "LOCAL_RANK": str(n)} if processes > 1 else {})
            process = context.Process(target=_run, args=(log, list(map(str, words)), own))
            process.start()
            running.append(process)
    return running


def _run(log: Path, words: list[str], environment: dict[str, str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(main(words))


def pictures(folder: Path) -> dict[str, bytes]:
    """Every image of a folder, as it is on the disk."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)
