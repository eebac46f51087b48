"""A Python that has imported the libraries already, for processes that would each import them for 15 CPU seconds.

    with running() as python:       it imports them, once
        python -c CODE              as with any Python; but CODE runs in a process that is forked from that one

`python` is a path. pytest-xdist starts its workers with it, and each worker the fork server of `processes.py`.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FunctionType, ModuleType

VARIABLE = "SNOOPI_TEST_WARM_PYTHON"  # environment variable: its path, where one is running
_MAX_FILES = 250  # that a process hands to its fork; the system allows 253


@contextmanager
def running(*modules: str) -> Iterator[Path]:
    """Import the modules in a new process, which can then be forked until the block, or this process, ends.

    modules: of those that cannot be imported, whoever needs them will say why
    """
    with tempfile.TemporaryDirectory(prefix="snoopi-warm-", ignore_cleanup_errors=True) as folder:
        address, python = Path(folder, "socket"), Path(folder, "python")
        words = [sys.executable, "-S", "-I", __file__, str(address)]
        python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        python.chmod(0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen()  # forks wait until all is imported
            code = f"import warm_python; warm_python.serve({listener.fileno()}, {modules!r})"
            server = subprocess.Popen(
                # -P: the folders of a checkout, such as models/, do not come before the libraries
                [sys.executable, "-P", "-u", "-c", code],
                stdin=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                pass_fds=[listener.fileno()],
            )
        with server:
            try:
                yield python
            finally:
                server.stdin.close()  # ends it


def serve(listening: int, modules: tuple[str, ...]) -> None:
    """Import the modules, then fork for each request until standard input is closed; forks run the request's code."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # nothing of what is imported is garbage
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
    gc.enable()
    gc.collect()
    gc.freeze()  # for the forks
    with socket.socket(fileno=listening) as listener:
        while True:
            if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
                return
            connection = listener.accept()[0]
            try:
                message, files, _, _ = socket.recv_fds(connection, 1 << 16, _MAX_FILES)
                with connection.makefile("rb") as rest:
                    request = json.loads(message + rest.read())
            except (OSError, ValueError):  # who asked has ended meanwhile
                connection.close()
                continue
            if not os.fork():
                break
            connection.close()  # the fork holds it as long as it lives
            for file in files:
                os.close(file)
    signal.signal(signal.SIGINT, interrupt)
    # open until this process ends, which `_fork` waits for
    fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, max(request["files"]) + 1)
    connection.close()
    _take_over(files, request["files"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.modules["__main__"] = ModuleType("__main__")
    # comfy-cli's `node validate` reads every file of the repository and refuses `exec`
    FunctionType(compile(request["code"], "<string>", "exec"), vars(sys.modules["__main__"]))()


def _take_over(received: list[int], numbers: list[int]) -> None:
    """Give received files the numbers that they had where they come from."""
    above = max(numbers) + 1
    copies = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above) for file in received]
    for file in received:
        os.close(file)
    for copy, number in zip(copies, numbers, strict=True):
        os.dup2(copy, number)
        os.close(copy)


def _fork(address: str, arguments: list[str]) -> None:
    """Let the server run the arguments' code with this process's files, folder and environment; wait for its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was forked gets it, too, and ends
    files = [number for number in map(int, os.listdir("/dev/fd")) if _is_open(number)]
    request = {
        "code": arguments[arguments.index("-c") + 1],
        "files": files,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    message = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        sent = socket.send_fds(connection, [message], files)
        connection.sendall(message[sent:])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # nothing, at its end


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False  # the folder that was listed
    return True


if __name__ == "__main__":
    _fork(sys.argv[1], sys.argv[2:])
