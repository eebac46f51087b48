"""Cosmos-Predict2 (text to image), and Anima, which is the same network with a text adapter in front."""

from __future__ import annotations

import functools
from typing import Any

import comfy.ldm.anima.model
import comfy.ops
import comfy.supported_models as supported
import torch

from .base import CONTEXT, Case, Condition, build, draw, host_inputs
from .formula import TransformerReference, WrittenOutAttention, attend, project, rms_norm, rotate, to_rows

_ARGUMENTS: dict[str, Any] = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "concat_padding_mask": True, "pos_emb_cls": "rope3d", "pos_emb_learnable": True,
    "use_adaln_lora": True, "adaln_lora_dim": 8, "model_channels": 64, "num_blocks": 3, "num_heads": 4,
    "mlp_ratio": 2.0, "crossattn_emb_channels": CONTEXT,
    "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0, "rope_t_extrapolation_ratio": 1.0,
}  # fmt: skip
_SHAPE = (16, 1, 6, 8)  # channels, frames, height, width
_ENCODER_WIDTH = 40
_VOCABULARY = 32128
_LEAST_TOKENS = 512


class _Attention(WrittenOutAttention):
    def response(self, q, tokens, mask):
        layer = self.layer
        k, v = project(tokens, layer.k_proj), project(tokens, layer.v_proj)
        k = rms_norm(k.unflatten(-1, (layer.n_heads, -1)), layer.k_norm).flatten(-2)
        return attend(q, k, v, layer.n_heads)

    def __call__(self, x, context, rope_emb=None, transformer_options=None):
        layer = self.layer  # positions rotate only self-attention
        q = rms_norm(project(x, layer.q_proj).unflatten(-1, (layer.n_heads, -1)), layer.q_norm).flatten(-2)
        return self.steer(q, self.response(q, context, None), layer.output_proj)


def _self_attention(layer):
    def forward(x, context, rope_emb, transformer_options=None):
        q, k, v = (project(x, part).unflatten(-1, (layer.n_heads, -1)) for part in _projections(layer))
        q, k = rms_norm(q, layer.q_norm), rms_norm(k, layer.k_norm)
        # A pair is one channel of the first half and one of the second.
        q, k = (rotate(part.unflatten(-1, (2, -1)).mT, rope_emb).mT.flatten(-3) for part in (q, k))
        return project(attend(q, k, v.flatten(-2), layer.n_heads), layer.output_proj)

    return forward


def _projections(layer):
    return layer.q_proj, layer.k_proj, layer.v_proj


class _Reference(TransformerReference):
    attention = _Attention

    def __init__(self, patcher):
        super().__init__(patcher)
        for block in self.network.blocks:
            block.self_attn.forward = _self_attention(block.self_attn)

    def cross_attentions(self):
        return [block.cross_attn for block in self.network.blocks]

    def prepare(self, condition, rows):
        return to_rows(condition["context"].double(), rows), None

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)


class _AnimaReference(_Reference):
    def prepare(self, condition, rows):
        """The adapter's tokens, weighted and padded with zeros; text without T5's tokens is used unchanged."""
        context = condition["context"].double()
        if "t5xxl_ids" in condition:
            context = self.network.llm_adapter(context, condition["t5xxl_ids"][None])
            context = context * condition["t5xxl_weights"].double()[None, :, None]
            context = torch.nn.functional.pad(context, (0, 0, 0, max(0, _LEAST_TOKENS - context.shape[1])))
        return to_rows(context, rows), None

    def run(self, x, t, condition):
        # Not the host's conds, since in inference mode the host runs the adapter there, in fp32.
        tokens, _ = self.prepare(condition, x.shape[0])
        return self.network(x, t, tokens, transformer_options={})


def _text(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, CONTEXT)}


def _qwen_and_t5(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    """Like the host's AnimaTEModel: Qwen's hidden states, T5's token ids and their weights."""
    return {
        "context": draw(generator, rows, tokens, _ENCODER_WIDTH),
        "t5xxl_ids": torch.randint(_VOCABULARY, (tokens + 3,), generator=generator, dtype=torch.int),
        "t5xxl_weights": 0.5 + torch.rand(tokens + 3, generator=generator),
    }


def _small_adapter(network: torch.nn.Module) -> None:
    """Replace the host's adapter of 134 million parameters by a small one of the same class."""
    network.llm_adapter = comfy.ldm.anima.model.LLMAdapter(
        source_dim=_ENCODER_WIDTH, target_dim=CONTEXT, model_dim=32, num_layers=2, num_heads=2, device="cpu",
        dtype=torch.float32, operations=comfy.ops.disable_weight_init,
    ).requires_grad_(False)  # fmt: skip


@functools.cache
def predict2() -> Case:
    patcher = build(supported.CosmosT2IPredict2, {**_ARGUMENTS, "image_model": "cosmos_predict2"})
    return Case(
        name="Cosmos-Predict2", patcher=patcher, reference=_Reference(patcher), make_condition=_text,
        latent_shape=_SHAPE, patch=2, blocks=3,
    )  # fmt: skip


@functools.cache
def anima() -> Case:
    patcher = build(supported.Anima, {**_ARGUMENTS, "image_model": "anima"}, adjust=_small_adapter)
    return Case(
        name="Anima", patcher=patcher, reference=_AnimaReference(patcher), make_condition=_qwen_and_t5,
        latent_shape=_SHAPE, patch=2, blocks=3,
    )  # fmt: skip
