"""Environments of their own, in the cache (see scripts/setup/host.py), for tools with many dependencies of their own.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from scripts.setup.host import cache_folder


def provide(pins: Path, size: str) -> Path:
    """The folder of commands of an environment with the packages in `pins` alone; it is made at the first call."""
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / pins.stem / f"{digest}-python{sys.version_info.major}.{sys.version_info.minor}"
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    stamp = folder / ".complete"
    if not stamp.exists():
        print(f"Installing {pins.stem} ({size}) ...", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted install
        venv.create(folder, with_pip=True)
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "--requirement", str(pins)], stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise SystemExit(f"pip could not install {pins.name} (see its message above). Is the network available?")
        stamp.touch()
    return scripts
