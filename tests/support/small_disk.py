"""A folder whose disk can be full: a small tmpfs where one may be mounted, else a limit on a process's files."""

from __future__ import annotations

import errno
import resource
import subprocess
import warnings
from pathlib import Path


class SmallDisk:
    """folder: on it. Enter before anything is written there."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self.megabytes = folder, megabytes
        self._filler = folder / "filler"

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.megabytes}m", "tmpfs", str(self.folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
            self.mounted, why = done.returncode == 0, done.stderr.strip()
        except FileNotFoundError as error:
            self.mounted, why = False, str(error)
        if not self.mounted:
            warnings.warn(f"no tmpfs ({why}): files are limited in size instead", stacklevel=2)
        return self

    def __exit__(self, *_: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self, process: int) -> None:
        """Nothing more can be written, by this process at least; under a limit, no file of more than 64 KiB."""
        if not self.mounted:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
            return
        with open(self._filler, "ab", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self, process: int) -> None:
        """process: the one that was limited; 0 where it is gone."""
        if self.mounted:
            self._filler.unlink()
        elif process:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
