"""metrics.jsonl: the metrics of a run, one line for each logged iteration."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

from snoopi_core.formats.atomic import write_atomically

Line = dict[str, float | None]  # None (null) if not a finite number, which JSON cannot express


class MetricsLog:
    """Appends to the file.

    before: lines of earlier starts of the run.

    Args:
        done: iterations that are done. Later lines are removed, since their iterations are repeated.
    """

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        self.before = [line for line in read_metrics(path) if line["iteration"] <= done]
        if path.exists():
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in self.before))

    def write(self, iteration: int, metrics: dict[str, float]) -> None:
        """Append one line; if the disk is full, the file stays as it was.

        Raises:
            OSError: the line could not be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:
            end = file.tell()
            named = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            line = json.dumps({"iteration": iteration, **named}).encode() + b"\n"
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise


def read_metrics(path: Path) -> list[Line]:
    """All complete lines; a line cut short when the process was killed is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("iteration"), int):
            lines.append(line)
    return lines
