"""Numbers in files, and whether what a file holds is what is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snoopi_core.formats.atomic import write_atomically


def as_json(content: Any) -> Any:
    """`content` as a file gives it back: tuples are lists."""
    return json.loads(json.dumps(content))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file; {} where there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Written whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def other_than(about: dict[str, Any], found: dict[str, Any], path: Path) -> str:
    """What is wrong where a file was measured of something else; "" where nothing is, or where there is no file."""
    differ = [f"{name} {found.get(name)!r}, not {value!r}" for name, value in about.items() if found.get(name) != value]
    if not found or not differ:
        return ""
    return f"{path} was measured with {'; '.join(differ)}: choose another --json, or delete it to measure anew"
