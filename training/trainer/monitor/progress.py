"""The progress of a run in a terminal: a bar, or in a log file a plain line now and then."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from typing import TextIO

import psutil
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LINE_EVERY = 30.0  # seconds; a night's log then has about a thousand lines
_LINE = "{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
_SHOWN = {"vsd": ".1e", "clip": ".3f", "lora": ".4f", "kappa": ".2f", "gap": ".1e"}


class Progress:
    """tqdm's bar: iterations a second, time left, losses, kappa, memory.

    Args:
        done, total: iterations.
        stream: where to; None = standard error.
        every: seconds between two lines where the stream is no terminal; a bar that is drawn anew would fill a log.
        show: whether to write anything (the main process alone).
    """

    def __init__(
        self, done: int, total: int, *, stream: TextIO | None = None, every: float = LINE_EVERY, show: bool = True
    ) -> None:
        stream = stream or sys.stderr
        terminal = stream.isatty()
        plain = {"file": _Lines(stream), "mininterval": every, "miniters": 1, "bar_format": _LINE}
        self.bar = tqdm(
            initial=done,
            total=total,
            desc="PG-SB",
            unit="it",
            smoothing=0.1,
            disable=not show,
            **({"file": stream, "dynamic_ncols": True} if terminal else plain),
        )
        self._around = ExitStack()
        if show and terminal:  # what is logged meanwhile goes above the bar, not through it
            self._around.enter_context(logging_redirect_tqdm())

    def update(self, metrics: dict[str, float]) -> None:
        """One more iteration is done; a change of the metrics alone draws nothing."""
        shown = {name: format(metrics[name], form) for name, form in _SHOWN.items() if name in metrics}
        self.bar.set_postfix(shown | {"memory": f"{memory_gib():.1f}GiB"}, refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()
        self._around.close()


def memory_gib() -> float:
    """GiB: the most that this process's tensors took on its GPU so far; without one, what the process takes now."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return psutil.Process().memory_info().rss / 2**30


class _Lines:
    """Turns a bar that is drawn over itself into lines. A log that cannot be written to is no reason to end a run."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            with suppress(OSError):
                self.stream.write(line + "\n")

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()
