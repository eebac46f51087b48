"""Progress of a run: a bar in a terminal, and plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

import psutil
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LINE_EVERY = 30.0  # seconds between lines: about a thousand lines per night
_LINE = "{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
_SHOWN = {"vsd": ".1e", "clip": ".3f", "lora": ".4f", "kappa": ".2f", "gap": ".1e"}


class Progress:
    """A tqdm bar with iterations per second, time left, losses, kappa and memory.

    Args:
        done: iterations done before. total: of the whole run.
        stream: output; None = standard error.
        every: seconds between two lines if the stream is not a terminal.
        show: whether to print anything; True in the main process only.
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
        if show and terminal:  # print log messages above the bar
            self._around.enter_context(logging_redirect_tqdm())

    def update(self, metrics: dict[str, float]) -> None:
        """Count one more iteration, and show its metrics."""
        shown = {name: format(metrics[name], form) for name, form in _SHOWN.items() if name in metrics}
        self.bar.set_postfix(shown | {"memory": f"{memory_gib():.1f}GiB"}, refresh=False)
        self.bar.update()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block's seconds out of the speed, and so out of the time left, and of the time shown."""
        start = time.monotonic()
        try:
            yield
        finally:
            if not self.bar.disable:  # tqdm's own `unpause` would also leave out iterations since the last line
                self.bar.start_t += time.monotonic() - start
                self.bar.last_print_t += time.monotonic() - start

    def close(self) -> None:
        self.bar.close()
        self._around.close()


def memory_gib() -> float:
    """Peak GPU memory of this process's tensors in GiB; without a GPU, its current resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return psutil.Process().memory_info().rss / 2**30


class _Lines:
    """A stream that turns tqdm's bar into lines, and ignores errors of the log file (a full disk, for instance)."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            with suppress(OSError):
                self.stream.write(line + "\n")

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()
