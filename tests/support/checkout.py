"""A copy of the checkout as a fresh repository, with uncommitted changes, as `git clone` would give it to a user."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from live_pack import ROOT

_AUTHOR = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")


def make_repository(folder: Path) -> Path:
    """Commit the tracked and the new files of this checkout in a fresh repository in ``folder``."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (source := ROOT / name).is_file():  # deleted files are skipped
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    for command in (["init", "--quiet"], ["add", "--all"], [*_AUTHOR, "commit", "--quiet", "--message", "All"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
