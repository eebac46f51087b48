"""Compiled networks, run as if they were not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch


class _Stance:
    """The compiler's, which is the whole process's: the first one in sets it, the last one out restores it.

    Threads of several GPUs that changed it across each other would leave it changed. No lock is held in between: one
    who looks on at a whole step waits for threads that come in here, and comes in again.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._restore = threading.Lock(), 0, contextlib.ExitStack()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0 and hasattr(torch.compiler, "set_stance"):  # since torch 2.6
                self._restore.enter_context(torch.compiler.set_stance("force_eager"))
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._restore.close()


_STANCE = _Stance()


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """No graph of its own for a compiled network's way to its first block, nor one for something that looks on."""
    _STANCE.enter()
    try:
        yield
    finally:
        _STANCE.leave()
