"""The text of a recipe file, as Windows programs save it too, and explanations of what is wrong with it."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_BACKSLASH = re.compile(r'"[^"\n]*\\[^"\n]*"')
_PATHS = ("path", "text_encoder", "vae", "init", "decoder", "pretrained", "source", "text_cache", "folder", "loras")
_ESCAPES = re.compile(r"[\n\t\b\f\r]")
_REMEDY = (
    r"in double quotes a backslash begins an escape (\n is a line break, \t a tab); write a Windows path in single "
    r"quotes, such as 'C:\new\teacher', or with /"
)


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file: UTF-8, or UTF-16 with a byte order mark (Notepad's "Unicode", PowerShell's `>`).

    Raises:
        OSError: it cannot be read.
        ValueError: it is not TOML; the message says why, without the file's name.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+)", str(error))
        line = text.split("\n")[int(place[1]) - 1] if place else ""
        if found := _BACKSLASH.search(line):
            raise ValueError(f"{error}: {found[0]}: {_REMEDY}") from error
        raise


def escaped_paths(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, message) of each path with a line break or a tab in it, which comes from "C:\\new" or "a\\teacher"."""
    for section, settings in tree.items():
        for key, value in settings.items() if isinstance(settings, Mapping) else ():
            texts = value if isinstance(value, list) else [value]
            if key in _PATHS and any(isinstance(text, str) and _ESCAPES.search(text) for text in texts):
                name = f"{section}.{key}"
                yield name, f"{name} has a line break or a tab in it ({str(value)[:80]!r}): {_REMEDY}"
