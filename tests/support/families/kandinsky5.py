"""Kandinsky 5, image and video: a text that passes through blocks of its own, at the noise level of the step."""

from __future__ import annotations

import functools
from typing import Any

import comfy.supported_models as supported
import torch

from .base import CONTEXT, Case, Condition, build, draw, host_inputs
from .formula import TransformerReference, WrittenOutAttention, attend, project, rotate, to_rows

_POOLED = 40
_ARGUMENTS: dict[str, Any] = {
    "image_model": "kandinsky5", "in_text_dim": CONTEXT, "in_text_dim2": _POOLED, "time_dim": 32, "model_dim": 64,
    "ff_dim": 96, "num_text_blocks": 2, "num_visual_blocks": 3, "axes_dims": (4, 6, 6),
}  # fmt: skip


def _norm(heads, layer):
    """x / sqrt(mean(x^2) + eps) * w of each head; the layer's eps is that of fp32."""
    mean = heads.square().mean(-1, keepdim=True)
    return heads / (mean + torch.finfo(torch.float32).eps).sqrt() * layer.weight


def _heads(x, projection, layer):
    return project(x, projection).unflatten(-1, (layer.num_heads, -1))


class _Attention(WrittenOutAttention):
    def response(self, q, tokens, mask):
        layer = self.layer
        k = _norm(_heads(tokens, layer.to_key, layer), layer.key_norm).flatten(-2)
        return attend(q, k, project(tokens, layer.to_value), layer.num_heads)

    def __call__(self, x, context, transformer_options=None):
        layer = self.layer
        q = _norm(_heads(x, layer.to_query, layer), layer.query_norm).flatten(-2)
        return self.steer(q, self.response(q, context, None), layer.out_layer)


def _self_attention(layer):
    def forward(x, freqs, transformer_options=None):
        q = _norm(_heads(x, layer.to_query, layer), layer.query_norm)
        k = _norm(_heads(x, layer.to_key, layer), layer.key_norm)
        q, k = (rotate(part.unflatten(-1, (-1, 2)), freqs).flatten(-3) for part in (q, k))
        return project(attend(q, k, project(x, layer.to_value), layer.num_heads), layer.out_layer)

    return forward


def _time_embedding(layer):
    def forward(timestep, dtype):
        angles = torch.outer(timestep.float(), layer.freqs.float())  # the host computes them in fp32
        waves = torch.cat([angles.cos(), angles.sin()], -1).double()
        return layer.out_layer(layer.activation(layer.in_layer(waves)))

    return forward


class _Reference(TransformerReference):
    attention = _Attention

    def __init__(self, patcher):
        super().__init__(patcher)
        network = self.network
        for block in (*network.text_transformer_blocks, *network.visual_transformer_blocks):
            block.self_attention.forward = _self_attention(block.self_attention)
        network.time_embeddings.forward = _time_embedding(network.time_embeddings)

    def cross_attentions(self):
        return [block.cross_attention for block in self.network.visual_transformer_blocks]

    def output(self, x, t, condition, subtractions=()):
        self.t = t
        return super().output(x, t, condition, subtractions)

    @torch.no_grad()
    def prepare(self, condition, rows):
        network = self.network
        tokens = to_rows(network.text_embeddings(condition["context"].double()), rows)
        pooled = network.pooled_text_embeddings(condition["pooled_output"].double())
        time = network.time_embeddings(self.t, torch.float64) + pooled
        freqs = network.rope_encode_1d(tokens.shape[1], dtype=torch.float32)
        for block in network.text_transformer_blocks:
            tokens = block(tokens, time, freqs)
        return tokens, None

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        if "c_concat" in inputs:
            x = torch.cat([x, inputs.pop("c_concat")], 1)
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)


def _condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, CONTEXT), "pooled_output": draw(generator, rows, _POOLED)}


@functools.cache
def kandinsky5(kind: str) -> Case:
    if kind == "image":
        patcher = build(supported.Kandinsky5Image, {**_ARGUMENTS, "visual_embed_dim": 4 * 16})
    else:
        # In the video model, a latent of known frames and its mask stand beside the noise.
        patcher = build(supported.Kandinsky5, {**_ARGUMENTS, "visual_embed_dim": 4 * (16 + 16 + 1)})
    return Case(
        name=f"Kandinsky 5 {kind}", patcher=patcher, reference=_Reference(patcher), make_condition=_condition,
        latent_shape=(16, 6, 8) if kind == "image" else (16, 2, 6, 8), patch=2, blocks=3,
    )  # fmt: skip
