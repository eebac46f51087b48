"""Results in JSON files, and the check that a file was measured with the same settings."""

from __future__ import annotations

import json
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


def other_than(about: dict[str, Any], found: dict[str, Any], path: Path) -> str:
    """The differences between the settings `about` and those of a file, as an error message; "" if there are none."""
    differ = [f"{name} {found.get(name)!r}, not {value!r}" for name, value in about.items() if found.get(name) != value]
    if not found or not differ:
        return ""
    return f"{path} was measured with {'; '.join(differ)}: choose another --json, or delete it to measure again"
