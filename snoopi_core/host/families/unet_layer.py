"""One cross-attention of a UNet.

Dimensions: B rows, R positive rows, N image tokens, T text tokens, C = heads x head width.
"""

from __future__ import annotations

from typing import NamedTuple

import comfy.ldm.modules.attention as attention
import torch

from ...guidance.blocks import Block
from .base import Call, Context, KeysValues, Options, Term

Address = tuple[str, int, int]
"""(group, block, depth within the block), the host's address of a cross-attention."""


class UNetLayer(NamedTuple):
    """A transformer block with a cross-attention, and its UNet block."""

    block: Block
    transformer: attention.BasicTransformerBlock

    def keys_values(self, context: Context) -> KeysValues:
        # Looked up each time, because another patch may replace the layer for a run.
        layer = self.transformer.attn2
        return layer.to_k(context.tokens), layer.to_v(context.tokens)

    def keys_values_of(self, term: Term, address: Address, call: Call, rows: int) -> KeysValues:
        """K- and V- of a negative for each positive row, (R, T, C): those kept for the run, or else computed now."""
        keys_values = term.keys_values[address] or self.keys_values(term.context)
        return tuple(call.repeat(each, rows) for each in keys_values)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra_options: Options) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V with the host's attention function, (B, N, C) for q (B, N, C) and k, v (B, T, C)."""
    heads, precision = extra_options["n_heads"], extra_options["attn_precision"]
    return attention.optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)
