"""The attention function that a block of the host calls, and the parts of its tokens.

Dimensions: B rows, P positive and N negative text tokens, I image tokens, H heads, D head width, C = H D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.attention import attention_pytorch

_PYTORCH = getattr(attention_pytorch, "__wrapped__", attention_pytorch)
Mask = torch.Tensor | None
"""Over keys, (..., 1, keys), or over queries and keys, (..., queries, keys): added to the logits, or True to attend."""


class Tokens(NamedTuple):
    """Keys and values of some tokens, in the layout of the block's call, and their mask for the image's queries."""

    k: torch.Tensor
    v: torch.Tensor
    mask: Mask


class Attention:
    """A call of the host's attention function, or of another node's override of it, with any queries, keys and values.

    Not a frozen dataclass, which torch.compile cannot make inside a graph.
    """

    def __init__(
        self,
        function: Callable[..., torch.Tensor],
        override: Callable[..., torch.Tensor] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """`args`: the positional arguments after queries, keys and values: heads, mask ..."""
        self.function, self.override, self.args, self.kwargs = function, override, args, kwargs

    @property
    def heads(self) -> int:
        return self.args[0] if self.args else self.kwargs["heads"]

    @property
    def mask(self) -> Mask:
        return self.args[1] if len(self.args) > 1 else self.kwargs.get("mask")

    @property
    def is_pytorch(self) -> bool:
        """Whether it is PyTorch's attention, without another node's override or settings of its own."""
        plain = self.override is None and not self.kwargs.get("enable_gqa") and self.kwargs.get("scale") is None
        return plain and self.function is _PYTORCH

    @property
    def axis(self) -> int:
        """The dimension of tokens in queries, keys and values: (B, tokens, C) or (B, H, tokens, D)."""
        return 2 if self.kwargs.get("skip_reshape") else 1

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Mask) -> torch.Tensor:
        """softmax(Q K^T / sqrt(D) + mask) V, (B, queries, C)."""
        args, kwargs = self.args, dict(self.kwargs)
        if len(args) > 1:
            args = (args[0], mask, *args[2:])
        elif mask is not None or "mask" in kwargs:
            kwargs["mask"] = mask
        function, override = self.function, self.override
        z = function(q, k, v, *args, **kwargs) if override is None else override(function, q, k, v, *args, **kwargs)
        return z.transpose(1, 2).flatten(2) if self.returns_heads else z

    @property
    def returns_heads(self) -> bool:
        return bool(self.kwargs.get("skip_output_reshape"))

    def as_returned(self, z: torch.Tensor) -> torch.Tensor:
        """z (B, queries, C) in the layout in which the block expects it."""
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2) if self.returns_heads else z

    def in_heads(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys or values as (B, H, tokens, D)."""
        return x if self.axis == 2 else x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def from_heads(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `in_heads`."""
        return x if self.axis == 2 else x.transpose(1, 2).flatten(2)


def join_masks(parts: Sequence[tuple[Mask, int]], dtype: torch.dtype) -> Mask:
    """One mask over keys from parts and their lengths; None if no part has a mask."""
    present = [mask for mask, _ in parts if mask is not None]
    if not present:
        return None
    lead = torch.broadcast_shapes(*(mask.shape[:-1] for mask in present))
    zeros = [present[0].new_zeros((*lead, length), dtype=dtype) if mask is None else None for mask, length in parts]
    whole = [
        zero if mask is None else added(mask, dtype).expand(*lead, mask.shape[-1])
        for zero, (mask, _) in zip(zeros, parts, strict=True)
    ]
    return torch.cat(whole, -1)


def added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as numbers that are added to logits."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
