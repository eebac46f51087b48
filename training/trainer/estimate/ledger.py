"""Counts live bytes, their peak, and floating-point operations of code on the meta device.

Both classes are torch modes that wrap ordinary code. `Ledger` sees every operator below autograd, so it counts what the
backward pass holds, recomputes and frees. `AsOnCuda` imitates what the meta device lacks: the dtypes of CUDA's autocast
(https://docs.pytorch.org/docs/stable/amp.html), and fused attention, which does not store scores.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


class Ledger(TorchDispatchMode):
    """Counts while it is active. live, peak: bytes. flops: of matrix products, convolutions and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.flops = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._known.add(tensor.untyped_storage())  # inputs, and the storage of views
        out = func(*args, **kwargs)
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **kwargs, out_val=out)
        return out

    def _free(self, size: int) -> None:
        self.live -= size


class AsOnCuda(TorchFunctionMode):
    """Imitates CUDA's autocast to bf16, if `half`, and its fused attention."""

    _LOW = frozenset({"linear", "conv2d", "matmul", "__matmul__", "bmm", "baddbmm", "addmm", "mm"})
    _HIGH = frozenset({"group_norm", "layer_norm", "softmax", "cosine_similarity", "mse_loss"})
    _ATTENTION = "scaled_dot_product_attention"

    def __init__(self, ledger: Ledger, *, half: bool) -> None:
        super().__init__()
        self.ledger, self.half = ledger, half
        self._copies: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()
        self._kept: list[torch.Tensor] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if self.half and (name in self._LOW or name in self._HIGH or name == self._ATTENTION):
            dtype = torch.float32 if name in self._HIGH else torch.bfloat16
            args, kwargs = tree_map(lambda value: self._cast(value, dtype), (args, kwargs))
        if name == self._ATTENTION:
            return _FusedAttention.apply(self.ledger, *args[:3])
        return func(*args, **kwargs)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """In this context, trained weights are cast once; copies live until its end, or while a graph needs them."""
        self._kept = []
        try:
            yield
        finally:
            self._kept = None

    def checkpoint(self, function: Callable[..., Any], *args: Any) -> Any:
        """torch's checkpointing, with this mode on while recomputing: function modes are off in a backward pass."""
        return checkpoint(function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), self))

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not (isinstance(value, nn.Parameter) and value.requires_grad):
            return value.to(dtype)
        copy = self._copies.get(id(value))
        if copy is None:
            copy = self._copies[id(value)] = value.to(dtype)
            if self._kept is not None:
                self._kept.append(copy)
        return copy


class _FusedAttention(torch.autograd.Function):
    """Stores queries, keys, values, the output and one number a row, as flash attention does; computes nothing."""

    @staticmethod
    def forward(ctx: Any, ledger: Ledger, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        ledger.flops += sdpa_flop_count(q.shape, k.shape, v.shape)
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.ledger = ledger
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v, *_ = ctx.saved_tensors
        ctx.ledger.flops += sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
        return None, torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
