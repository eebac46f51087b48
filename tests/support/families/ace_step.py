"""ACE-Step 1 and 1.5: music from tags and lyrics, which are one sequence for the network."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import comfy.ldm.ace.ace_step15 as ace_step15
import comfy.ldm.ace.lyric_encoder as lyric_encoder
import comfy.ops
import comfy.supported_models as supported
import torch

from .base import CONTEXT, Case, Condition, build, draw, host_inputs
from .formula import TransformerReference, WrittenOutAttention, attend, project, rms_norm, to_rows

_LYRICS = 32
_VOCABULARY = 50


def _turn(x: torch.Tensor, rotations: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Pairs of neighbouring channels of (B, N, H, D), rotated."""
    cos, sin = (part.double()[:, None] for part in rotations)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-odd, even], -1).flatten(-2) * sin


def _heads(x: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    return x.unflatten(-1, (layer.heads, -1))


class _Attention(WrittenOutAttention):
    rotations: Any = None
    """Of the keys, as long as the longest sequence."""

    def response(self, q, tokens, mask):
        layer = self.layer
        k = _turn(_heads(project(tokens, layer.to_k), layer), [each[: tokens.shape[1]] for each in self.rotations])
        return attend(q, k.flatten(-2), project(tokens, layer.to_v), layer.heads)

    def __call__(self, hidden_states, encoder_hidden_states, rotary_freqs_cis, **_):
        layer = self.layer
        q = _turn(_heads(project(hidden_states, layer.to_q), layer), rotary_freqs_cis).flatten(-2)
        return self.steer(q, self.response(q, encoder_hidden_states, None), layer.to_out[0])


def _linear_attention(layer):
    """(relu Q) (relu K^T V) / (relu Q) (relu K^T 1)."""

    def forward(hidden_states, rotary_freqs_cis, **_):
        q, k = (
            torch.relu(_turn(_heads(project(hidden_states, each), layer), rotary_freqs_cis))
            for each in (layer.to_q, layer.to_k)
        )
        v = _heads(project(hidden_states, layer.to_v), layer)
        weights = torch.einsum("bnhd,bthd->bhnt", q, k)
        weights = weights / (weights.sum(-1, keepdim=True) + layer.processor.eps)
        z = torch.einsum("bhnt,bthd->bnhd", weights, v).flatten(-2)
        return project(z, layer.to_out[0]), None

    return forward


class _Reference(TransformerReference):
    attention = _Attention

    def __init__(self, patcher):
        super().__init__(patcher)
        for block, attention in zip(self.network.transformer_blocks, self.attentions, strict=True):
            block.attn.forward = _linear_attention(block.attn)
            attention.rotations = self.network.rotary_emb(torch.zeros(1, dtype=torch.float64), seq_len=200)

    def cross_attentions(self):
        return [block.cross_attn for block in self.network.transformer_blocks]

    def prepare(self, condition, rows):
        tokens, _ = self.network.encode(
            condition["context"].double(), None, torch.zeros(condition["context"].shape[0], 512).double(),
            condition["conditioning_lyrics"], None, condition["lyrics_strength"],
        )  # fmt: skip
        return to_rows(tokens, rows), None

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        return self.network(x, t, context=inputs.pop("c_crossattn"), transformer_options={}, **inputs)


class _Attention15(WrittenOutAttention):
    def response(self, q, tokens, mask):
        layer = self.layer
        repeats = layer.num_heads // layer.num_kv_heads
        k, v = (
            project(tokens, each).unflatten(-1, (layer.num_kv_heads, -1)) for each in (layer.k_proj, layer.v_proj)
        )  # fmt: skip
        k, v = (each.repeat_interleave(repeats, 2).flatten(-2) for each in (rms_norm(k, layer.k_norm), v))
        return attend(q, k, v, layer.num_heads)

    def __call__(self, x, encoder_hidden_states, attention_mask=None):
        layer = self.layer
        q = rms_norm(project(x, layer.q_proj).unflatten(-1, (layer.num_heads, -1)), layer.q_norm).flatten(-2)
        return self.steer(q, self.response(q, encoder_hidden_states, None), layer.o_proj)


class _Reference15(TransformerReference):
    attention = _Attention15

    def cross_attentions(self):
        return [block.cross_attn for block in self.network.decoder.layers]

    def output(self, x, t, condition, subtractions=()):
        self.x = x
        return super().output(x, t, condition, subtractions)

    def prepare(self, condition, rows):
        network, context = self.network, condition["context"].double()
        silence = ace_step15.get_silence_latent(self.x.shape[-1], "cpu").double().mT.expand(context.shape[0], -1, -1)
        order = torch.zeros(context.shape[0], dtype=torch.long)
        tokens, _ = network.encoder(context, None, condition["conditioning_lyrics"].double(), None, silence, order)
        return to_rows(network.decoder.condition_embedder(tokens), rows), None

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)


def _tokens(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    """Like the host's TextEncodeAceStepAudio: the lyrics are token ids."""
    return {
        "context": draw(generator, rows, tokens, CONTEXT),
        "conditioning_lyrics": torch.randint(_VOCABULARY, (rows, tokens + 4), generator=generator),
        "lyrics_strength": 0.8,
    }


def _embedded(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    """Like the host's TextEncodeAceStepAudio1.5: the lyrics have been embedded."""
    lyrics = draw(generator, rows, tokens + 4, CONTEXT)
    return {"context": draw(generator, rows, tokens, CONTEXT), "conditioning_lyrics": lyrics}


def _small_encoder(network: torch.nn.Module) -> None:
    """Instead of the host's encoder of lyrics, whose sizes are fixed: one of the same class."""
    encoder = lyric_encoder.ConformerEncoder(
        input_size=_LYRICS, output_size=_LYRICS, attention_heads=2, linear_units=40, num_blocks=1, static_chunk_size=0,
        dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    network.lyric_encoder = encoder.eval()


@functools.cache
def ace_step() -> Case:
    arguments = {
        "audio_model": "ace", "attention_head_dim": 16, "num_attention_heads": 4, "inner_dim": 64, "num_layers": 3,
        "mlp_ratio": 2.0, "text_embedding_dim": CONTEXT, "lyric_hidden_size": _LYRICS, "max_position": 256,
        "lyric_encoder_vocab_size": _VOCABULARY, "ssl_latent_dims": [8, 8],
    }  # fmt: skip
    patcher = build(supported.ACEStep, arguments, adjust=_small_encoder)
    return Case(
        name="ACE-Step 1", patcher=patcher, reference=_Reference(patcher), make_condition=_tokens,
        latent_shape=(8, 16, 7), patch=1, blocks=3,
    )  # fmt: skip


@functools.cache
def ace_step_15() -> Case:
    arguments = {
        "audio_model": "ace1.5", "hidden_size": 64, "text_hidden_dim": CONTEXT, "num_dit_layers": 3,
        "num_lyric_layers": 1, "num_timbre_layers": 1, "num_tokenizer_layers": 1, "num_heads": 4, "num_kv_heads": 2,
        "head_dim": 16, "intermediate_size": 96, "fsq_dim": 64,
    }  # fmt: skip
    encoder = {"encoder_hidden_size": 64, "encoder_intermediate_size": 96, "encoder_num_heads": 4}
    if "encoder_num_heads" in inspect.signature(ace_step15.AceStepConditionGenerationModel).parameters:
        arguments |= encoder
    patcher = build(supported.ACEStep15, arguments)
    return Case(
        name="ACE-Step 1.5", patcher=patcher, reference=_Reference15(patcher), make_condition=_embedded,
        latent_shape=(64, 10), patch=1, blocks=3,
    )  # fmt: skip
