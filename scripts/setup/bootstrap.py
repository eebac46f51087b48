"""Set up everything that `make demo` and `make test` need; a second run does nothing.

1. a virtual environment in .venv, made with the Python that runs this;
2. the packages of requirements-lock.txt in it;
3. a real ComfyUI (scripts/setup/host.py);
4. with --browser: Chromium, from the system's packages.

Standard library only: it runs before anything is installed. SNOOPI_VENV puts the environment elsewhere.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from scripts.setup.host import ROOT

LOCK = ROOT / "requirements-lock.txt"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FREE_BYTES = 10 * 2**30  # the environment takes about 6 GiB, mostly torch's CUDA libraries


class SetupError(RuntimeError):
    """Something that only the user can fix; the message explains how."""


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


def venv_folder() -> Path:
    return Path(os.environ.get("SNOOPI_VENV") or ROOT / ".venv").expanduser()


def venv_python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def root_prefix() -> list[str] | None:
    """The prefix that runs a command as root without asking for a password; None if there is no such way."""
    if os.name == "nt":
        return None
    if os.geteuid() == 0:
        return []
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n"]
    return None


def apt_install(packages: list[str], purpose: str) -> None:
    """Install Debian packages.

    Raises:
        SetupError: they could not be installed; the message has the command to run.
    """
    prefix = root_prefix()
    command = f"apt-get install {' '.join(packages)}"
    if prefix is None or shutil.which("apt-get") is None:
        raise SetupError(f"{purpose} is missing. On Debian or Ubuntu: sudo {command}. Then run this again.")
    say(f"{purpose} is missing: {command} ...")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive"]
    subprocess.run([*environment, "apt-get", "-qq", "update"], check=False, **quiet)
    install = [*environment, "apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages]
    done = subprocess.run(install, check=False, **quiet)
    if done.returncode != 0:
        raise SetupError(f"{command} failed:\n{done.stdout[-2000:]}")


def make_venv(folder: Path) -> None:
    """Create the environment, unless there is one that works."""
    python = venv_python(folder)
    pip_works = [str(python), "-m", "pip", "--version"]
    if python.exists() and subprocess.run(pip_works, capture_output=True, check=False).returncode == 0:
        return
    say(f"making a virtual environment in {folder} with Python {sys.version.split()[0]} ...")
    create = [sys.executable, "-m", "venv", "--clear", str(folder)]
    if subprocess.run(create, capture_output=True, check=False).returncode == 0:
        return
    # Debian has a package of its own for venv's pip.
    apt_install([f"python3.{sys.version_info.minor}-venv"], "Python's venv module")
    subprocess.run(create, check=True)


def install_lock(folder: Path) -> None:
    """Install the locked packages, unless the environment's stamp shows that they are installed."""
    stamp = folder / ".snoopi-lock"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return
    free = shutil.disk_usage(folder).free
    if not stamp.exists() and free < FREE_BYTES:
        raise SetupError(
            f"{folder} has {free / 2**30:.1f} GiB free; the packages need about 6, and 10 while installing."
        )
    say(f"installing {LOCK.name} (about 3 GB to download the first time) ...")
    started = time.monotonic()
    pip = [str(venv_python(folder)), "-m", "pip", "install", "--disable-pip-version-check"]  # shows its progress
    done = subprocess.run([*pip, "--requirement", str(LOCK)], stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise SetupError(f"pip could not install {LOCK.name} (see its message above). Is the network available?")
    stamp.write_text(digest, encoding="utf-8")
    say(f"packages installed in {time.monotonic() - started:.0f} s")


def find_browser() -> str | None:
    """SNOOPI_CHROMIUM, or a Chromium on the PATH."""
    if given := os.environ.get("SNOOPI_CHROMIUM"):
        if not Path(given).is_file():
            raise SetupError(f"SNOOPI_CHROMIUM is {given!r}, which is not a file.")
        return given
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def provide_browser() -> None:
    """Install Chromium, and the library that Playwright's driver needs and a minimal Debian lacks."""
    missing = []
    if find_browser() is None:
        missing += ["chromium", "fonts-dejavu-core"]
    if sys.platform == "linux" and not loads("libatomic.so.1"):
        missing += ["libatomic1"]
    if missing:
        apt_install(missing, "What the browser tests need")


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", action="store_true", help="also provide Chromium")
    options = parser.parse_args(arguments)
    if sys.version_info < (3, 11):  # noqa: UP036 - people run this with whatever Python they have
        print(f"[setup] Python 3.11 or newer is needed, not {sys.version.split()[0]}: make PYTHON=python3.11 ...")
        return 1
    try:
        folder = venv_folder()
        make_venv(folder)
        install_lock(folder)
        host = subprocess.run(
            [str(venv_python(folder)), "-m", "scripts.setup.host"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        if host.returncode != 0:
            return 1  # the error has been printed
        if options.browser:
            provide_browser()
        say(f"ready: {folder}, ComfyUI at {host.stdout.strip()}")
    except SetupError as error:
        print(f"[setup] {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
