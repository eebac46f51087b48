"""Run comfy-cli, the registry's own tool, on this checkout: `python -m scripts.setup.comfy_cli node validate`.

It is installed at the first call, in an environment of its own: it has many dependencies that neither ComfyUI nor the
trainer uses. It sends no telemetry and asks no questions. `node publish` is refused while links name the placeholder.

Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scripts.setup import placeholder
from scripts.setup.pinned_env import provide as provide_environment

PINS = Path(__file__).with_name("comfy-cli.txt")
QUIET = {"DO_NOT_TRACK": "1"}


def provide() -> Path:
    """The path of the `comfy` command, which is installed first if necessary."""
    return provide_environment(PINS, "about 400 MB") / "comfy"


def main() -> int:
    arguments = sys.argv[1:]
    if "publish" in arguments and "--help" not in arguments:
        placeholder.check()
    command = [str(provide()), "--skip-prompt", *arguments]
    return subprocess.run(command, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
