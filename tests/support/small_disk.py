"""A folder on a disk that can be filled: a small tmpfs if it can be mounted, else a size limit for files."""

from __future__ import annotations

import errno
import resource
import subprocess
import warnings
from pathlib import Path


class SmallDisk:
    """folder: on the disk. Enter the context before writing to it."""

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
        """Fill the disk; without a tmpfs, limit the files of `process` to 64 KiB."""
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
        """Free the disk, or lift the limit of `process`; 0 if it has ended."""
        if self.mounted:
            self._filler.unlink()
        elif process:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
