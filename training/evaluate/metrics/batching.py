"""Where the judges' networks run."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def device_of(args: argparse.Namespace) -> torch.device:
    """The first GPU unless `--cpu`; the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Pieces of `size`, the last one shorter."""
    return (items[n : n + size] for n in range(0, len(items), size))


def prepared(
    items: Sequence[T], prepare: Callable[[T], torch.Tensor], size: int, threads: int = 4
) -> Iterator[torch.Tensor]:
    """Batches of prepared items, each read while the one before is computed with: decoding and resizing happen outside
    of Python's lock."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[torch.Tensor]]] = deque()
        for some in batches(items, size):
            waiting.append([pool.submit(prepare, item) for item in some])
            if len(waiting) > 1:
                yield torch.stack([future.result() for future in waiting.popleft()])
        for futures in waiting:
            yield torch.stack([future.result() for future in futures])
