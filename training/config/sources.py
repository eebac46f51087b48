"""What recipes refer to: paths, hub ids, and packages of Python."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORLDS = ("shapes", "avatars")  # small worlds of drawn pictures, whose captions are generated without end


def find_file(path: str) -> Path:
    """The path as given, or below the project's root if it exists only there, so recipes work from any folder."""
    given = Path(os.path.expanduser(path))  # unlike Path.expanduser, leaves an unknown ~user as it is
    below = ROOT / given
    return below if not exists(given) and exists(below) else given


def exists(path: Path) -> bool:
    """Like Path.exists, but False for strings that cannot be a path (with NUL, or too long)."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def looks_like_hub_id(name: str) -> bool:
    """Whether `name` has the form owner/name; does not contact the hub."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and Path(name).suffix != ".safetensors"


def package_versions(*names: str) -> dict[str, str]:
    """Versions of the packages that pip installed; `find_spec` would also find plain folders, such as W&B's logs."""
    found: dict[str, str] = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
