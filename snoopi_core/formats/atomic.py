"""Files written so that a reader sees the old file or the whole new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, which takes its place once the block has ended without an error.

    Its permissions are those of any new file, whatever the block writes it with: safetensors would let nobody but the
    owner read it.

    Raises:
        OSError: it cannot be written; names the file. Nothing of it is left, and an older file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(b"")
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:  # not the system's own: a file name would take the place of the message
            raise OSError(f"{path}: {error}") from error
        error.filename = error.filename or str(path)  # a full disk does not say what could not be written
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a text (as UTF-8) or bytes. Raises: OSError, as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
