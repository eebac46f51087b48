"""Counts floating-point operations: matrix products, convolutions and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _forward(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# PyTorch's counter knows the attention of GPUs, but takes that of CPUs for no work at all.
_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}


def flops(step: Callable[[], Any]) -> int:
    """Floating-point operations of `step()`."""
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
        step()
    return counter.get_total_flops()
