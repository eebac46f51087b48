"""A real ComfyUI server in its own process and its own base directory, with the pack in custom_nodes/."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
from live_client import Client
from live_pack import install_pack

START_SECONDS = 300  # only for a server that hangs
STOP_SECONDS = 60


class ServerError(RuntimeError):
    """The server did not start, or exited; the message contains the end of its log."""


class Server:
    """``with Server(host, base) as server: server.client.run(...)``. ``base`` must not exist or be empty.

    ``arguments`` are added to the host's command line. It runs with ``python`` and ``environment``; ``install`` copies
    the pack into the base directory.
    """

    def __init__(
        self,
        host: Path,
        base: Path,
        *arguments: str,
        python: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
        install: Callable[[Path], object] = install_pack,
    ) -> None:
        self.host = host
        self.base = base
        self.arguments = arguments
        self.python = python
        self.environment = environment or {}
        self.install = install
        self.log_file = base / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.start_log = ""  # its output up to the moment it was ready
        self.client = Client("")

    def __enter__(self) -> Server:
        # The host lists custom_nodes/ without checking that it exists.
        for folder in ("custom_nodes", "models/checkpoints", "models/diffusion_models", "input", "output", "user"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        self.pack = self.install(self.base)
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.client = Client(self.url)
        arguments = ["main.py", "--cpu", "--port", str(port), "--base-directory", str(self.base)]
        arguments += ["--database-url", f"sqlite:///{self.base / 'comfyui.db'}", "--preview-method", "latent2rgb"]
        # Also keeps the front end from calling the internet.
        arguments += ["--disable-api-nodes", "--disable-auto-launch", *self.arguments]
        # One thread: for such small models, more are slower (six times on a busy machine).
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        environment |= self.environment
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.python), *arguments],
                cwd=self.host,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_ready()
        self.start_log = self.log()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        started = time.monotonic()
        while time.monotonic() - started < START_SECONDS:
            if self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended with code {self._process.returncode}:\n{self.log()[-3000:]}")
            try:
                self.client.get_json("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        self.stop()
        raise ServerError(f"ComfyUI did not answer within {START_SECONDS} s:\n{self.log()[-3000:]}")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def memory(self) -> int:
        """Resident memory of the process, in bytes."""
        assert self._process is not None
        return psutil.Process(self._process.pid).memory_info().rss

    def log(self) -> str:
        """Everything the server has printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Stop the process; does nothing if it has already ended."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
