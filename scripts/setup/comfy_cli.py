"""Run comfy-cli, the registry's own tool, on this checkout: `python -m scripts.setup.comfy_cli node validate`.

It is installed at the first call, in an environment of its own in the cache (see scripts/setup/host.py): it has many
dependencies that neither ComfyUI nor the trainer uses. It sends no telemetry and asks no questions.

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

PINS = Path(__file__).with_name("comfy-cli.txt")
QUIET = {"DO_NOT_TRACK": "1"}


def provide() -> Path:
    """The path of the `comfy` command, which is installed first if necessary."""
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "comfy-cli" / f"{digest}-python{sys.version_info.major}.{sys.version_info.minor}"
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    stamp = folder / ".complete"
    if not stamp.exists():
        print("Installing comfy-cli (about 400 MB) ...", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted install
        venv.create(folder, with_pip=True)
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "--requirement", str(PINS)], stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise SystemExit(f"pip could not install {PINS.name} (see its message above). Is the network available?")
        stamp.touch()
    return scripts / "comfy"


def main() -> int:
    command = [str(provide()), "--skip-prompt", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
