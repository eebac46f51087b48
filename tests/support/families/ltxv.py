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


class LTXAttention(WrittenOutAttention):
    """A block's attention to the text; its gates and the modulation of its text are optional."""

    table: torch.nn.Parameter | None = None
    """The block's part of the modulation, (2, C)."""
    level: torch.Tensor | None = None
    """The noise level's part, (B, 2 C)."""
    part = slice(None)
    """Its part of a prepared negative."""

    def response(self, q, tokens, mask):
        tokens = tokens[..., self.part]
        if self.table is not None:
            shift, scale = (self.table + self.level.unflatten(-1, (2, -1))).unsqueeze(2).unbind(1)
            tokens = tokens * (1 + scale) + shift
        return self._attend(q, tokens, mask)

    def _attend(self, q, tokens, mask):
        layer = self.layer
        k, v = rms_norm(project(tokens, layer.to_k), layer.k_norm), project(tokens, layer.to_v)
        return self.gated(attend(q, k, v, layer.heads, mask))

    def gated(self, z):
        return z * self.gates

    def __call__(self, x, context, mask=None, transformer_options=None):
        layer = self.layer
        q = rms_norm(project(x, layer.to_q), layer.q_norm)
        self.gates = gates(layer, x)
        # The block has already modulated the positive. The network has converted its mask, (B, 1, 1, T): 0 for tokens,
        # the lowest number for padding.
        z_pos = self._attend(q, context, None if mask is None else mask[:, 0, 0] == 0)
        return self.steer(q, z_pos, layer.to_out[0])


def gates(layer, x):
    """One factor for each head, (B, N, H D); 1 without gates."""
    if getattr(layer, "to_gate_logits", None) is None:
        return 1.0
    return (2 * torch.sigmoid(project(x, layer.to_gate_logits))).repeat_interleave(layer.dim_head, -1)


def _rotated(part, pe, heads):
    """Queries or keys, (B, N, C), rotated by either format of older and newer hosts."""
    is_split = pe[-1] is True
    if len(pe) == 2 and isinstance(pe[1], bool):
        matrices = pe[0]
    else:
        # Interleaved: each value is repeated. In halves: (B, H, N, D/2).
        cos, sin = (
            each.swapaxes(1, 2) if is_split else each[..., ::2].unflatten(-1, (heads, -1)) for each in pe[:2]
        )  # fmt: skip
        matrices = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
    part = part.unflatten(-1, (heads, 2, -1)).mT if is_split else part.unflatten(-1, (heads, -1, 2))
    part = rotate(part, matrices)
    return (part.mT if is_split else part).flatten(-3)


def written_out(layer):
    """The forward of any other attention: to the picture itself, of a connector, between picture and sound."""

    def forward(x, context=None, mask=None, pe=None, k_pe=None, transformer_options=None):
        context = x if context is None else context
        q, k = rms_norm(project(x, layer.to_q), layer.q_norm), rms_norm(project(context, layer.to_k), layer.k_norm)
        q, k = _rotated(q, pe, layer.heads), _rotated(k, pe if k_pe is None else k_pe, layer.heads)
        weights = None if mask is None else _weights(mask, x.shape[1])
        z = attend(q, k, project(context, layer.to_v), layer.heads, weights) * gates(layer, x)
        return project(z, layer.to_out[0])

    return forward


def _weights(mask, tokens):
    """How much tokens attend to each other, (1, N, N): less between video and weak guides; from either format."""
    if isinstance(mask, torch.Tensor):
        return mask[0].double().exp()
    logs = mask.noisy_mask[0].double().repeat(1, tokens, 1)
    logs[:, mask.guide_start : mask.guide_start + mask.tracked_count] = mask.tracked_mask[0].double()
    return logs.exp()


class _Reference(TransformerReference):
    attention = LTXAttention

    def __init__(self, patcher):
        super().__init__(patcher)
        for block, attention in zip(self.network.transformer_blocks, self.attentions, strict=True):
            block.attn1.forward = written_out(block.attn1)
            attention.table = getattr(block, "prompt_scale_shift_table", None)

    def cross_attentions(self):
        return [block.attn2 for block in self.network.transformer_blocks]

    def prepare(self, condition, rows):
        tokens = self.network.caption_projection(condition["context"].double())
        return to_rows(tokens, rows), to_rows(condition["attention_mask"], rows)

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        for attention in self.attentions:
            if attention.table is not None:
                attention.level = noise_level(self.network, "prompt_adaln_single", t)
        if "denoise_mask" in inputs:  # some tokens have less noise
            t = t[:, None, None] * inputs["denoise_mask"].float()[:, 0].flatten(1)[..., None]
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)


def noise_level(network: torch.nn.Module, name: str, t: torch.Tensor) -> torch.Tensor:
    """What the modulation of the text gets of the noise level, (B, 2 C)."""
    return getattr(network, name)(t * network.timestep_scale_multiplier, None, t.shape[0], torch.float64)[0]


def _condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {
        "context": draw(generator, rows, tokens, CONTEXT),
        "attention_mask": padding_mask(tokens, padding, rows),
        "frame_rate": 24.0,
    }


@functools.cache
def ltxv(*, modulated: bool = False) -> Case:
    patcher = build(supported.LTXV, {**_ARGUMENTS, "cross_attention_adaln": modulated})
    return Case(
        name="LTXV, modulated text" if modulated else "LTXV", patcher=patcher, reference=_Reference(patcher),
        make_condition=_condition, latent_shape=(128, 2, 4, 6), patch=1, blocks=3,
    )  # fmt: skip
