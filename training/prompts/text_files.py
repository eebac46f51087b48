"""Files of prompts that people write, which must be UTF-8: lines of text and JSON lines. Tables are in tables.py."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

_HOW_TO_SAVE = 'save the file as UTF-8 (in Excel "CSV UTF-8", in Notepad the encoding UTF-8)'


def read_lines(path: Path, start: int = 0, *, newline: str | None = None) -> Iterator[str]:
    """The lines from number `start` on, with or without the byte order mark that Windows programs write.

    Args:
        newline: as of `open`: None turns all line ends into \\n; "" keeps them.

    Raises:
        ValueError: a line is not UTF-8; the message has its number.
    """
    with open(path, encoding="utf-8-sig", newline=newline) as file:
        try:
            for number, line in enumerate(islice(file, start, None), start + 1):
                if "\0" in line:
                    raise ValueError(f"line {number} has a NUL character, so it is probably UTF-16; {_HOW_TO_SAVE}")
                yield line
        except UnicodeDecodeError as error:
            raise ValueError(not_utf8(path) or str(error)) from error


def not_utf8(path: Path) -> str:
    """Where and why a file is not UTF-8; "" if it is."""
    with open(path, "rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return f"line 1: it is UTF-16, not UTF-8; {_HOW_TO_SAVE}"
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                shown = line.decode("latin-1").strip()[:60]
                return f"line {number} is not UTF-8 (byte {line[error.start]:#04x}): {shown!r}; {_HOW_TO_SAVE}"
    return ""


def json_line(line: str) -> dict[str, Any]:
    """A line of a .jsonl file; lines may have different keys and types.

    Raises:
        ValueError: it is not a JSON object.
    """
    if not line.strip():
        return {}
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"a line is not valid JSON, {error}: {line.strip()[:100]!r}") from error
    if not isinstance(content, dict):
        raise ValueError(f'a line is not a JSON object such as {{"prompt": "a cat"}}: {line.strip()[:100]!r}')
    return content
