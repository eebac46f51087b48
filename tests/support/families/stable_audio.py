"""Stable Audio 1 and 3: sound from a text, to which the host adds the times of the clip."""

from __future__ import annotations

import functools
from typing import Any

import comfy.ldm.audio.embedders as embedders
import comfy.supported_models as supported
import torch

from .base import Case, Condition, build, draw, host_inputs
from .formula import TransformerReference, WrittenOutAttention, attend, project, to_rows

_WIDTH = 768  # of the text; the host's embedding of the times has no other
_LENGTH = 9
_SHARED: dict[str, Any] = {
    "audio_model": "dit1.0", "embed_dim": 128, "num_heads": 4, "depth": 3, "project_cond_tokens": True,
}  # fmt: skip
_VERSIONS: dict[str, dict[str, Any]] = {
    "1": {"io_channels": 64, "global_cond_dim": 2 * _WIDTH},
    "3": {
        "io_channels": 256, "global_cond_dim": _WIDTH, "global_cond_shared_embed": True, "global_cond_type": "adaLN",
        "attn_kwargs": {"qk_norm": "rms", "differential": True}, "norm_type": "rms_norm",
        "timestep_features_type": "expo", "local_add_cond_dim": 257, "num_memory_tokens": 2,
    },
}  # fmt: skip


def _split(x: torch.Tensor, layer: torch.nn.Module, norm: torch.nn.Module | None) -> torch.Tensor:
    """Queries or keys, (B, N, H, D), normalized if the layer does so; with the eps of fp32."""
    x = x.unflatten(-1, (layer.num_heads, -1))
    if layer.qk_norm in ("none", False):  # the latter on older hosts
        return x
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt() * norm.gamma


def _turn(x: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """The first channels of each head rotated: one of their first half with one of their second."""
    freqs = freqs.double()[:, None]
    size = freqs.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    first, second = turned.chunk(2, -1)
    turned = turned * freqs.cos() + torch.cat([-second, first], -1) * freqs.sin()
    return torch.cat([turned, rest], -1)


def _difference(queries, keys, v, heads):
    """Of two attentions, if the layer has two pairs of queries and keys."""
    z = [attend(q.flatten(-2), k.flatten(-2), v, heads) for q, k in zip(queries, keys, strict=True)]
    return z[0] if len(z) == 1 else z[0] - z[1]


class _Attention(WrittenOutAttention):
    def response(self, q, tokens, mask):
        layer = self.layer
        *keys, v = project(tokens, layer.to_kv).chunk(3 if self.is_differential else 2, -1)
        keys = [_split(k, layer, getattr(layer, "k_norm", None)) for k in keys]
        return _difference(q, keys, v, layer.num_heads)

    @property
    def is_differential(self):
        return getattr(self.layer, "differential", False)

    def __call__(self, x, context=None, context_mask=None, transformer_options=None):
        layer = self.layer
        queries = project(x, layer.to_q).chunk(2 if self.is_differential else 1, -1)
        queries = [_split(q, layer, getattr(layer, "q_norm", None)) for q in queries]
        self.z = self.response(queries, context, None)
        return self.steer(queries, self.z, layer.to_out)

    def answer(self, prompt):
        return self.z  # of both attentions, of which `prompt` is the second


def _self_attention(layer):
    def forward(x, mask=None, rotary_pos_emb=None, transformer_options=None):
        freqs = rotary_pos_emb[0]
        q, k, v, *more = project(x, layer.to_qkv).chunk(5 if getattr(layer, "differential", False) else 3, -1)
        queries = [_turn(_split(each, layer, getattr(layer, "q_norm", None)), freqs) for each in (q, *more[:1])]
        keys = [_turn(_split(each, layer, getattr(layer, "k_norm", None)), freqs) for each in (k, *more[1:])]
        return project(_difference(queries, keys, v, layer.num_heads), layer.to_out)

    return forward


class _Reference(TransformerReference):
    attention = _Attention

    def __init__(self, patcher):
        super().__init__(patcher)
        for block in self.network.transformer.layers:
            block.self_attn.forward = _self_attention(block.self_attn)

    def cross_attentions(self):
        return [block.cross_attn for block in self.network.transformer.layers]

    def output(self, x, t, condition, subtractions=()):
        self.x = x
        return super().output(x, t, condition, subtractions)

    def prepare(self, condition, rows):
        tokens = host_inputs(self.patcher, self.x, condition)["c_crossattn"]
        return to_rows(self.network.to_cond_embed(tokens), rows), None

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)


def _condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    total = int(torch.randint(5, 90, (), generator=generator))
    return {"context": draw(generator, rows, tokens, _WIDTH), "seconds_start": 2, "seconds_total": total}


def _set_frequencies(network: torch.nn.Module) -> None:
    """A buffer, which files hold."""
    frequencies = network.transformer.rotary_pos_emb.inv_freq
    frequencies.copy_(10000.0 ** -(torch.arange(len(frequencies)) / len(frequencies)))


def _times(kind: str, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights of the embeddings of times, under their names in a file."""
    options = {} if kind == "1" else {"fourier_features_type": "expo"}
    shapes = embedders.NumberConditioner(_WIDTH, **options).state_dict()
    return {
        f"conditioner.conditioners.{name}.{key}": draw(generator, *shape.shape) * 0.1
        for name in ("seconds_start", "seconds_total")
        for key, shape in shapes.items()
    }


@functools.cache
def stable_audio(version: str) -> Case:
    config = supported.StableAudio if version == "1" else supported.StableAudio3
    weights = _times(version, torch.Generator().manual_seed(5))
    patcher = build(config, {**_SHARED, **_VERSIONS[version]}, adjust=_set_frequencies, weights=weights)
    channels = _VERSIONS[version]["io_channels"]
    return Case(
        name=f"Stable Audio {version}", patcher=patcher, reference=_Reference(patcher), make_condition=_condition,
        latent_shape=(channels, _LENGTH), patch=1, blocks=3,
    )  # fmt: skip
