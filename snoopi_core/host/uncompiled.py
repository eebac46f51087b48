"""Compiled networks, run as if they were not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_STANCE = threading.Lock()


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """No graph of its own for a compiled network's way to its first block, nor one for something that looks on.

    The stance is the whole process's. Threads of several GPUs that changed it across each other would leave it changed.
    """
    set_stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    with _STANCE, contextlib.nullcontext() if set_stance is None else set_stance("force_eager"):
        yield
