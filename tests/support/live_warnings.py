"""A custom node that records logged warnings and errors, and the file that logged them.

The server's own log has the messages without level and origin.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

_SOURCE = """
import json, logging, pathlib

class Recorder(logging.Handler):
    def emit(self, record):
        entry = {"path": record.pathname, "line": record.lineno, "level": record.levelname, "text": record.getMessage()}
        with open(pathlib.Path(__file__).with_name("warnings.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\\n")

logging.captureWarnings(True)
logging.getLogger().addHandler(Recorder(logging.WARNING))
NODE_CLASS_MAPPINGS = {}
"""


class Logged(NamedTuple):
    path: str
    line: int
    level: str
    text: str


def install_recorder(base: Path) -> Path:
    """Install the node into ``base/custom_nodes``; returns the file for ``recorded``."""
    folder = base / "custom_nodes" / "aaa_recorder"  # the host imports in alphabetical order
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(_SOURCE, encoding="utf-8")
    return folder / "warnings.jsonl"


def recorded(file: Path) -> list[Logged]:
    """The records so far, in order."""
    if not file.exists():
        return []
    return [Logged(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
