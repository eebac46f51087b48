"""Run compiled networks without their compiled graphs."""

from __future__ import annotations

import contextlib
import threading

import torch


class _Uncompiled:
    """A context without compiled graphs: for runs that stop at the first block, and for runs with an observer.

    The compiler stance is global to the process: the first to enter sets it, the last to leave restores it. Without
    the counter, overlapping threads of several GPUs could leave it changed. The lock is not held in between, because
    an observed step waits for other threads that enter, and enters again itself.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._restore = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0 and hasattr(torch.compiler, "set_stance"):  # since torch 2.6
                self._restore.enter_context(torch.compiler.set_stance("force_eager"))
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._restore.close()


uncompiled = _Uncompiled()
