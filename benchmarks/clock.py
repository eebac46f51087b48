"""Measures the seconds of each phase of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

PHASES = (
    "text",
    "student forward",
    "teachers",
    "student backward",
    "student optimiser + EMA",
    "LoRA forward + backward",
    "LoRA optimiser",
)


class Clock:
    """Measures processor time for one CPU thread, so that other programs do not count, and otherwise wall time. A GPU
    is synchronized first.

    Measures nothing until `running` is set, because synchronizing at every phase slows a GPU down.
    """

    def __init__(self, device: torch.device, threads: int = 1) -> None:
        self.device, self.threads, self.running, self.last = device, threads, False, ""
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time() if self.threads == 1 else time.perf_counter()
        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = self.now() if self.running else 0.0
        try:
            yield
        finally:
            self.last = phase
            if self.running:
                self.seconds[phase] += self.now() - start

    def watch(self, owner: Any, name: str, phase: str | dict[str, str]) -> None:
        """Add the time of calls of owner.name to `phase`; a dict gives the phase by the one before it."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(phase if isinstance(phase, str) else phase[self.last]):
                return inner(*args, **kwargs)

        setattr(owner, name, timed)
