"""HunyuanDiT: the tokens of two text encoders, one after the other."""

from __future__ import annotations

import functools
from typing import Any

import comfy.supported_models as supported
import torch

from .base import CONTEXT, Case, Condition, build, draw, host_inputs, padding_mask
from .formula import TransformerReference, WrittenOutAttention, attend, layer_norm, project, to_rows

_CLIP, _T5 = 12, 9  # tokens for which the network has paddings; the minimum length
_T5_WIDTH = 40
_ARGUMENTS: dict[str, Any] = {
    "hidden_size": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 1.5,
    "text_states_dim": CONTEXT, "text_states_dim_t5": _T5_WIDTH, "text_len": _CLIP, "text_len_t5": _T5,
}  # fmt: skip


class _Attention(WrittenOutAttention):
    def response(self, q, tokens, mask):
        layer = self.layer
        k, v = project(tokens, layer.kv_proj).chunk(2, -1)
        k = layer_norm(k.unflatten(-1, (layer.num_heads, -1)), layer.k_norm).flatten(-2)
        return attend(q, k, v, layer.num_heads)

    def __call__(self, x, y, freqs_cis_img):
        layer = self.layer
        q = layer_norm(project(x, layer.q_proj).unflatten(-1, (layer.num_heads, -1)), layer.q_norm)
        cos, sin = (
            freqs[None, :, None, :] for freqs in freqs_cis_img
        )  # each value is repeated for both channels of a pair
        even, odd = q[..., 0::2], q[..., 1::2]
        q = (q * cos + torch.stack([-odd, even], -1).flatten(-2) * sin).flatten(-2)
        return (self.steer(q, self.response(q, y, None), layer.out_proj),)


class _Reference(TransformerReference):
    attention = _Attention

    def __init__(self, patcher):
        super().__init__(patcher)
        for block in self.network.blocks:
            block.attn1.attn_precision = None  # its value means fp32

    def cross_attentions(self):
        return [block.attn2 for block in self.network.blocks]

    def prepare(self, condition, rows):
        """Both encoders' tokens; each padding is replaced by a learned token."""
        network = self.network
        first, silu, second = network.mlp_t5
        t5 = project(silu(project(condition["conditioning_mt5xl"].double(), first)), second)
        parts = []
        for tokens, mask, padding in (
            (condition["context"].double(), condition["attention_mask"], network.text_embedding_padding[:_CLIP]),
            (t5, condition["attention_mask_mt5xl"], network.text_embedding_padding[_CLIP:]),
        ):
            last = len(padding)  # earlier tokens stay, whatever the mask is
            tail = torch.where(mask[:, -last:, None] == 0, padding, tokens[:, -last:])
            parts.append(torch.cat([tokens[:, :-last], tail], 1))
        return to_rows(torch.cat(parts, 1), rows), None

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        return self.network(x, t, inputs.pop("c_crossattn").clone(), **inputs)


def _condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    """A prompt with `tokens` more than the minimum for each encoder."""
    clip, t5 = _CLIP + tokens, _T5 + tokens
    return {
        "context": draw(generator, rows, clip, CONTEXT),
        "attention_mask": padding_mask(clip, padding, rows),
        "conditioning_mt5xl": draw(generator, rows, t5, _T5_WIDTH),
        "attention_mask_mt5xl": padding_mask(t5, padding, rows),
    }


@functools.cache
def hunyuan_dit(version: str = "1.2") -> Case:
    if version == "1.2":
        patcher = build(supported.HunyuanDiT, {**_ARGUMENTS, "image_model": "hydit"})
    else:
        extra = {"image_model": "hydit1", "size_cond": True, "use_style_cond": True}
        patcher = build(supported.HunyuanDiT1, {**_ARGUMENTS, **extra})
    return Case(
        name=f"HunyuanDiT {version}", patcher=patcher, reference=_Reference(patcher), make_condition=_condition,
        latent_shape=(4, 6, 8), patch=2, blocks=4, tokens=3, fewer=0, more=12,
    )  # fmt: skip
