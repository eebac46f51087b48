"""Watch a server's process from its start: logged warnings and errors, and network connections.

Python imports a module sitecustomize before everything else, so it runs before the host and the packs, without changes
to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from live_warnings import Logged

_SOURCE = """
import json, logging, os, sys

def note(kind, **entry):
    with open(os.environ["SNOOPI_OBSERVED"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, **entry}) + "\\n")

class Recorder(logging.Handler):
    def emit(self, record):
        note("log", path=record.pathname, line=record.lineno, level=record.levelname, text=record.getMessage())

def outside(address):
    host = address[0] if isinstance(address, tuple) else None  # a path is a socket of this machine
    if isinstance(host, bytes):
        host = host.decode()
    return host and host != "localhost" and not host.startswith(("127.", "::1", "0.0.0.0")) and host != "::"

def hook(event, arguments):
    address = {"socket.connect": arguments[1:2], "socket.getaddrinfo": [arguments[:2]]}.get(event)
    if address and outside(address[0]):
        note("call", address=str(address[0]))

logging.captureWarnings(True)
logging.getLogger().addHandler(Recorder(logging.WARNING))
sys.addaudithook(hook)
"""


class Observer:
    """Pass `environment` to a server; `calls` and `warnings` are the records so far."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_SOURCE, encoding="utf-8")
        self._file = folder / "observed.jsonl"
        self._file.touch()
        self.environment: Mapping[str, str] = {"PYTHONPATH": str(folder), "SNOOPI_OBSERVED": str(self._file)}

    def _entries(self, kind: str) -> list[dict]:
        entries = map(json.loads, self._file.read_text(encoding="utf-8").splitlines())
        return [entry for entry in entries if entry.pop("kind") == kind]

    @property
    def warnings(self) -> list[Logged]:
        return [Logged(**entry) for entry in self._entries("log")]

    @property
    def calls(self) -> list[str]:
        """Addresses outside this machine that were looked up or connected to."""
        return [entry["address"] for entry in self._entries("call")]
