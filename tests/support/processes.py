"""Run our commands in processes that are forked from one process with everything imported.

A fresh Python needs about ten seconds of CPU to import torch, diffusers and accelerate; a forked one needs none. There
is one such fork server per pytest process, for all commands. With pytest-xdist it is itself a fork (warm_python.py).
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import torch
import warm_python

_CONTEXT = multiprocessing.get_context("forkserver")
TIMEOUT = 600  # seconds after which a process counts as hanging; not a limit on speed


def start(command: Callable[..., None], *arguments: object) -> BaseProcess:
    """Call `command`, a function at the top level of a module, in a new process."""
    _CONTEXT.set_forkserver_preload(["preloaded"])  # has an effect only on the first call
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        # Only for the fork server: what it forks needs no executable, and others are to be real Pythons.
        multiprocessing.set_executable(os.environ.get(warm_python.VARIABLE, sys.executable))
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            multiprocessing.set_executable(sys.executable)
        process = _CONTEXT.Process(target=command, args=arguments)
        process.start()
    return process


def set_up(log: Path, environment: Mapping[str, str]) -> None:
    """In a new process: append its output to `log`, and set its environment and number of threads."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    # a shell starts background processes, such as a test run, with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)


def rank_environments(processes: int) -> list[dict[str, str]]:
    """Environment of each process of one distributed run (gloo), as torchrun would set it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
