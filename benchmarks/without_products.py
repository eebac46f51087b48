"""Runs a network without computing, to count its operations in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

_LARGE = 2**16
"""So many elements are not computed; fewer are, since programs look at some values, such as noise levels."""


class WithoutProducts(TorchDispatchMode):
    """Within it, large results are zeros of the right shape at once, and large tensors do not change."""

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
        returns = function._schema.returns
        if all(each.numel() < _LARGE for each in given) or any(each.device.type == "meta" for each in given):
            return function(*args, **kwargs)
        if function._schema.is_mutable:
            return kwargs.get("out", args[0]) if returns else None
        if any(each.alias_info is not None for each in returns):  # a view
            return function(*args, **kwargs)
        try:
            out = function(
                *tree_map_only(torch.Tensor, _shape_of, args), **tree_map_only(torch.Tensor, _shape_of, kwargs)
            )
        except (NotImplementedError, RuntimeError):  # the shape depends on values
            return function(*args, **kwargs)
        if all(each.numel() < _LARGE for each in tree_iter(out) if isinstance(each, torch.Tensor)):
            return function(*args, **kwargs)
        return tree_map_only(torch.Tensor, lambda each: torch.zeros(each.shape, dtype=each.dtype), out)


def _shape_of(each: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="meta")
