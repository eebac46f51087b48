"""Runs a network without computing its matrix products, to count its operations in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_aten = torch.ops.aten
_PRODUCTS = {
    _aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm, _aten.convolution,
    _aten._scaled_dot_product_flash_attention_for_cpu,
}  # fmt: skip


class WithoutProducts(TorchDispatchMode):
    """Within it, products, convolutions and attention return zeros of the right shape at once."""

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function._overloadpacket not in _PRODUCTS:
            return function(*args, **kwargs)
        out = function(*tree_map_only(torch.Tensor, _shape_of, args), **tree_map_only(torch.Tensor, _shape_of, kwargs))
        return tree_map_only(torch.Tensor, lambda each: torch.zeros(each.shape, dtype=each.dtype), out)


def _shape_of(each: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="meta")
