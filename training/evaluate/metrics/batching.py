"""Device and batches for the networks that score images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def choose_device(cpu: bool) -> torch.device:
    """The first GPU, or the CPU if `cpu` is set or there is no GPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of `size` items; the last one may be shorter."""
    return (items[n : n + size] for n in range(0, len(items), size))


def prepared(
    items: Sequence[T], prepare: Callable[[T], torch.Tensor], size: int, threads: int = 4
) -> Iterator[torch.Tensor]:
    """Stacked batches of `prepare(item)`; the next batch is prepared in threads while the caller uses the current one.

    Threads help because decoding and resizing release Python's lock.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[torch.Tensor]]] = deque()
        for some in batches(items, size):
            waiting.append([pool.submit(prepare, item) for item in some])
            if len(waiting) > 1:
                yield torch.stack([future.result() for future in waiting.popleft()])
        for futures in waiting:
            yield torch.stack([future.result() for future in futures])
