"""Measures how fast a device multiplies matrices."""

from __future__ import annotations

import time

import torch


def matmul_rate(device: torch.device, dtype: torch.dtype, *, seconds: float = 1.0) -> float:
    """Floating-point operations per second of large matrix products: the best rate in about `seconds` of measuring."""
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b)
        _synchronize(device)
        best = min(best, (time.perf_counter() - start) / 10)
    return 2 * size**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
