"""Write requirements-lock.txt: the exact version of everything that `make demo` and `make test` install.

Run it with the Python of a fresh virtual environment (`make lock`). It lets pip install the requirements of the newest
pinned ComfyUI and this project's `training`, `avatars` and `test` extras there, and writes the versions that pip chose.
Older hosts run in the same environment (tests/live/server checks it), so one lock is enough.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib

from scripts.setup.host import NEWEST, ROOT, pinned_host

LOCK = ROOT / "requirements-lock.txt"
# One matching CUDA set, which also runs on the CPU. A torch newer than the newest torchaudio fails at import, and a
# CPU-only torch breaks torchvision's wheel on PyPI, so these three are fixed here and not left to the resolver.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
LINUX_ONLY = re.compile(r"(nvidia-|cuda-|triton$)")
TOOLS = {"pip", "wheel"}  # setuptools stays, since the test of the wheel builds with it
HEADER = f"""\
# Exact versions for CI, `make demo` and `make test`. Written by `make lock`; do not edit.
# ComfyUI {NEWEST} and the extras training, avatars and test, resolved on Linux x86-64 with Python {{python}}.
"""


def requirements() -> list[str]:
    """The requirements that pip resolves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*TORCH, *project["dependencies"], *extras["training"], *extras["avatars"], *extras["test"]]


def lock_line(pin: str) -> str:
    """One line of the lock. The GPU libraries only exist for Linux; elsewhere torch works without them."""
    name = pin.partition("==")[0]
    return f'{pin} ; sys_platform == "linux"' if LINUX_ONLY.match(name) else pin


def main() -> int:
    if sys.prefix == sys.base_prefix:
        print("lock.py installs packages: run it in a fresh virtual environment (make lock).", file=sys.stderr)
        return 1
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    host_requirements = pinned_host(NEWEST) / "requirements.txt"
    subprocess.run([*pip, "install", "-r", str(host_requirements), *requirements()], check=True)
    freeze = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout
    pins = [line for line in freeze.splitlines() if "==" in line and line.partition("==")[0].lower() not in TOOLS]
    python = ".".join(map(str, sys.version_info[:2]))
    lines = [lock_line(pin) for pin in sorted(pins, key=str.lower)]
    LOCK.write_text(HEADER.format(python=python) + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{LOCK.name}: {len(lines)} pins")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m scripts.setup.lock", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    sys.exit(main())
