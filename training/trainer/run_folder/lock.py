"""The lock of a run folder: one process trains in it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import Accelerator
from filelock import FileLock, Timeout

from training.config import RecipeError
from training.trainer.distributed.accelerator import on_main
from training.trainer.run_folder.checkpoint import remove_unfinished

LOCK = ".lock"


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Lock a run folder until the end of the block or of the process. Every process must enter this context.

    Raises:
        RecipeError: another run holds the lock.
        OSError: the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK)
    created: list[Path] = []

    def acquire() -> None:
        created.extend(path for path in (folder, *folder.parents) if not path.exists())
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RecipeError(
                f"another process is training in {folder}; wait for it or stop it, or choose another output.folder"
            ) from None
        remove_unfinished(folder / "checkpoints")

    on_main(accelerator, acquire)
    try:
        yield
    finally:
        with suppress(OSError):
            if created and [path.name for path in folder.iterdir()] == [LOCK]:  # the run failed before it started
                (folder / LOCK).unlink()
                for path in created:
                    path.rmdir()
        lock.release()
