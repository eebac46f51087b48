"""Names of things on the disk or on a hub, as people write them into recipes."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def find_file(path: str) -> Path:
    """A path as given, or below the project's root, so that shipped recipes work from any folder."""
    given = Path(os.path.expanduser(path))  # unlike Path.expanduser, leaves an unknown ~user as it is
    below = ROOT / given
    return below if not exists(given) and exists(below) else given


def exists(path: Path) -> bool:
    """Like Path.exists, and False for what can be no path at all (a NUL in it, too long a name)."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def looks_like_hub_id(name: str) -> bool:
    """Whether `name` has the form owner/name; nobody is asked whether there is such a thing."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and Path(name).suffix != ".safetensors"
