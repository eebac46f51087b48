"""Print the folder of the newest front end that is tested: the argument of ComfyUI's ``--front-end-root``.

A ComfyUI comes with the front end of its own time, but users may have a newer one. This one is downloaded from PyPI,
verified by the checksum below, and kept in the cache (see scripts/setup/host.py).

Standard library only.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.setup.host import HostError, cache_folder

DISTRIBUTION, VERSION = "comfyui-frontend-package", "1.58.1"
SHA256 = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"
STATIC = Path("comfyui_frontend_package", "static")


def newest_front_end() -> Path:
    """The folder with its ``index.html``; it is downloaded first if it is not in the cache.

    Raises:
        HostError: the download failed.
    """
    target = cache_folder() / "front-ends" / VERSION
    if not target.is_dir():  # it is only moved there when complete
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{VERSION}-") as scratch:
            _install(Path(scratch))
            try:
                (Path(scratch) / "site").rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
    return target / STATIC


def _install(scratch: Path) -> None:
    print(f"Downloading front end {VERSION} ({DISTRIBUTION}) ...", file=sys.stderr, flush=True)
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{DISTRIBUTION}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-compile", "--only-binary", ":all:", "--require-hashes", "--requirement", str(wanted)]
    command += ["--target", str(scratch / "site")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise HostError(f"pip could not install {DISTRIBUTION}=={VERSION}:\n{tail}\nIs the network available?")


if __name__ == "__main__":
    print(newest_front_end())
