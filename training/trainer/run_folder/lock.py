"""The lock of a folder: one program writes into it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import Accelerator
from filelock import FileLock, Timeout

from training.config import RecipeError
from training.config.sources import exists
from training.trainer.distributed.accelerator import on_main
from training.trainer.run_folder.checkpoint import remove_unfinished

LOCK = ".lock"


@contextmanager
def locked(folder: Path, accelerator: Accelerator, busy: str) -> Iterator[None]:
    """Lock a folder until the end of the block or of the process. Every process must enter this context.

    Args:
        busy: the error if another program holds the lock.

    Raises:
        RecipeError: another program holds the lock.
        OSError: the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK)

    def acquire() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RecipeError(busy) from None

    on_main(accelerator, acquire)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_run(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Lock a run folder, see `locked`, and tidy it up: it is removed again if the run fails before it has written."""
    created = [path for path in (folder, *folder.parents) if accelerator.is_main_process and not exists(path)]
    busy = f"another process is training in {folder}; wait for it or stop it, or choose another output.folder"
    with locked(folder, accelerator, busy):
        on_main(accelerator, lambda: remove_unfinished(folder / "checkpoints"))
        try:
            yield
        finally:
            with suppress(OSError):
                if created and [path.name for path in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                    for path in created:
                        path.rmdir()
