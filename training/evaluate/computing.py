"""Where the judges' networks run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Batches of prepared items, read ahead: decoding and resizing happen outside of Python's lock."""
    with ThreadPoolExecutor(threads) as pool:
        for some in batches(items, size):
            yield torch.stack(list(pool.map(prepare, some)))
