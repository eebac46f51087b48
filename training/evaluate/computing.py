"""Where the judges' networks run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def device_of(args: argparse.Namespace) -> torch.device:
    """The first GPU unless `--cpu`; the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Pieces of `size`, the last one shorter."""
    return (items[n : n + size] for n in range(0, len(items), size))
