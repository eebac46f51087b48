"""LTX-Video: text with an attention mask."""

from __future__ import annotations

import functools
from typing import Any

import comfy.supported_models as supported
import torch

from .base import CONTEXT, Case, Condition, build, draw, host_inputs, padding_mask
from .formula import TransformerReference, WrittenOutAttention, attend, project, rms_norm, rotate, to_rows

_ARGUMENTS: dict[str, Any] = {
    "image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 16,
    "num_attention_heads": 4, "caption_channels": CONTEXT, "num_layers": 3,
}  # fmt: skip


class _Attention(WrittenOutAttention):
    def response(self, q, tokens, mask):
        layer = self.layer
        k, v = rms_norm(project(tokens, layer.to_k), layer.k_norm), project(tokens, layer.to_v)
        return attend(q, k, v, layer.heads, mask)

    def __call__(self, x, context, mask, transformer_options=None):
        layer = self.layer
        q = rms_norm(project(x, layer.to_q), layer.q_norm)
        # The network has converted its mask, (B, 1, 1, T): 0 for tokens, the lowest number for padding.
        return self.steer(q, self.response(q, context, mask[:, 0, 0] == 0), layer.to_out[0])


def _matrices(pe, heads):
    """Rotations of each pair of channels, (B, N, H, D/2, 2, 2), from the formats of older and newer hosts."""
    if len(pe) == 2:
        return pe[0]
    cos, sin = (part[..., ::2].unflatten(-1, (heads, -1)) for part in pe[:2])  # each value is repeated
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))


def _self_attention(layer):
    def forward(x, pe, mask=None, transformer_options=None):
        q, k = rms_norm(project(x, layer.to_q), layer.q_norm), rms_norm(project(x, layer.to_k), layer.k_norm)
        matrices = _matrices(pe, layer.heads)
        q, k = (rotate(part.unflatten(-1, (layer.heads, -1, 2)), matrices).flatten(-3) for part in (q, k))
        return project(attend(q, k, project(x, layer.to_v), layer.heads), layer.to_out[0])

    return forward


class _Reference(TransformerReference):
    attention = _Attention

    def __init__(self, patcher):
        super().__init__(patcher)
        for block in self.network.transformer_blocks:
            block.attn1.forward = _self_attention(block.attn1)

    def cross_attentions(self):
        return [block.attn2 for block in self.network.transformer_blocks]

    def prepare(self, condition, rows):
        tokens = self.network.caption_projection(condition["context"].double())
        return to_rows(tokens, rows), to_rows(condition["attention_mask"], rows)

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)


def _condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {
        "context": draw(generator, rows, tokens, CONTEXT),
        "attention_mask": padding_mask(tokens, padding, rows),
        "frame_rate": 24.0,
    }


@functools.cache
def ltxv() -> Case:
    patcher = build(supported.LTXV, _ARGUMENTS)
    return Case(
        name="LTXV", patcher=patcher, reference=_Reference(patcher), make_condition=_condition,
        latent_shape=(128, 2, 4, 6), patch=1, blocks=3,
    )  # fmt: skip
