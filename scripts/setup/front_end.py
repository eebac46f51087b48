"""Print the folder of the newest front end that is tested: the argument of ComfyUI's ``--front-end-root``.

A ComfyUI comes with the front end of its own time, but users may have a newer one. The newest, and that of the oldest
ComfyUI, are downloaded from PyPI, verified by the checksums below, and kept in the cache (see scripts/setup/host.py).

Standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.setup.host import cache_folder, cached, run_pip

DISTRIBUTION = "comfyui-frontend-package"
NEWEST, OLDEST = "1.58.1", "1.39.19"  # 1.39.19 is that of ComfyUI 0.16.3
SHA256 = {
    NEWEST: "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9",
    OLDEST: "58343dd79eca371badbe354c12b9bc47c7dc58f7f92243be537e178dfbaf2036",
}
STATIC = Path("comfyui_frontend_package", "static")


def newest_front_end() -> Path:
    """The folder with its ``index.html``; it is downloaded first if it is not in the cache.

    Raises:
        HostError: the download failed.
    """
    return _folder(NEWEST)


def oldest_front_end() -> Path:
    """The same for the front end of the oldest ComfyUI that is supported."""
    return _folder(OLDEST)


def _folder(version: str) -> Path:
    def make(scratch: Path) -> Path:
        print(f"Downloading front end {version} ({DISTRIBUTION}) ...", file=sys.stderr, flush=True)
        options = ("--no-compile", "--only-binary", ":all:", "--target", str(scratch / "site"))
        run_pip("install", f"{DISTRIBUTION}=={version}", SHA256[version], scratch, *options)
        return scratch / "site"

    return cached(cache_folder() / "front-ends" / version, make) / STATIC


if __name__ == "__main__":
    print(newest_front_end())
