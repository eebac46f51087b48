"""Write files atomically: a reader sees the old file or the complete new one, never a partial one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which replaces `path` when the block ends without an error.

    The file gets the permissions of any new file: safetensors would make it readable by its owner only.

    Args:
        shared: several processes may write `path` at the same time, so each gets its own temporary file. Otherwise
            there is one name, and the next write removes what a killed process left.

    Raises:
        OSError: it cannot be written; names the file. The temporary file is removed and an older file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp" if shared else f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # its permissions may be those of safetensors
        temporary.write_bytes(b"")
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:  # not a system error: setting a file name would replace the message
            raise OSError(f"{path}: {error}") from error
        error.filename = error.filename or str(path)  # a full disk's error does not name the file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes. Raises OSError, as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
