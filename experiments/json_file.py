"""Results in JSON files, and the check that a file was measured with the same settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from snoopi_core.formats.atomic import write_atomically


def as_json(content: Any) -> Any:
    """`content` as it is read back from a file: tuples become lists."""
    return json.loads(json.dumps(content))


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; {} if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` atomically."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_results(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of results; {} if there is none.

    Raises:
        SystemExit: it was measured with other settings than `about`. The differences are printed; the status is 2.
    """
    found = read_json(path)
    differ = [f"{name} {found.get(name)!r}, not {value!r}" for name, value in about.items() if found.get(name) != value]
    if found and differ:
        settings = "; ".join(differ)
        print(
            f"error: {path} was measured with {settings}: choose another --json, or delete it to measure again",
            file=sys.stderr,
        )
        raise SystemExit(2)
    return found
