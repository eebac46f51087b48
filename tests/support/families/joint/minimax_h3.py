"""MiniMax H3: video and sound in one packed sequence with the text."""

from __future__ import annotations

from typing import Any

import comfy.nested_tensor
import comfy.sample
import comfy.supported_models as supported
import comfy.utils
import torch

from ..base import CONTEXT, Case, Condition, build, draw
from .case import JointCase, joint_case
from .formula import QKV, JointReference

MINIMAX: dict[str, Any] = {
    "image_model": "minimax_h3", "hidden_size": 64, "num_layers": 3, "token_refiner_num_layers": 1,
    "num_attention_heads": 2, "attention_head_dim": 32, "ffn_hidden_size": 64, "latents_dim": 24,
    "audio_latents_dim": 32, "text_dim": CONTEXT, "timestep_input_dim": 32, "time_embed_hidden_size": 64,
    "time_embed_dim": 32, "rope_inv_freq_len": 4,
}  # fmt: skip
VIDEO, AUDIO = (24, 2, 8, 12), (32, 2, 5)
PICTURE, SOUND = 48, 10
"""Tokens of the video and of the sound."""


def _split_half(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotary positions over pairs (c, c + half) of the first channels: x (1, H, S, D), table (1, S, 1, half, 2, 2)."""
    half = table.shape[-3]
    pairs = torch.stack([x[..., :half], x[..., half : 2 * half]], -1)
    turned = torch.einsum("...ij,...j->...i", table.movedim(2, 1).double(), pairs)
    return torch.cat([turned[..., 0], turned[..., 1], x[..., 2 * half :]], -1)


class MiniMaxReference(JointReference):
    def blocks(self):
        return [(block, self.block) for block in self.network.blocks]

    def prepare(self, condition, x):
        network = self.network
        tokens = network.preprocess_text_embeds(condition["context"].double())
        ids = torch.zeros(tokens.shape[1], 3)
        ids[:, 0] = torch.arange(tokens.shape[1])
        angles = network.rope_freqs(ids, "cpu")
        half = angles.shape[-1] // 2
        cos, sin = angles[:, :half].cos(), angles[:, :half].sin()
        table = torch.stack([cos, -sin, sin, cos], -1).reshape(1, tokens.shape[1], 1, half, 2, 2)
        return tokens, table, condition.get("minimax_token_tags")

    def moved(self, positions):
        return positions.roll(1, 1)

    def block(self, block, index, x, t_emb, mod_segments, rope_freqs):
        rows = block.adaln_proj(t_emb)
        attn, length = block.attn, self._text

        def mods(segments):
            return [torch.cat([each[row].expand(b - a, -1) for a, b, row in segments]) for each in rows]

        def qkv(x, mod, table):
            h = block.norm1(x) * (1 + mod[1]) + mod[0]
            parts = attn.qkv_proj(h).chunk(3, -1)
            q, k, v = (part.unflatten(-1, (attn.heads, -1)).transpose(0, 1)[None] for part in parts)
            return QKV(_split_half(attn.q_norm(q), table), _split_half(attn.k_norm(k), table), v)

        def finished(x, z, mod):
            x = x + mod[2] * attn.out_proj(z[0])
            a, b = block.mlp.fc1(block.norm2(x) * (1 + mod[4]) + mod[3]).chunk(2, -1)
            return x + mod[5] * block.mlp.fc2(torch.nn.functional.silu(a) * b)

        whole = mods(mod_segments)
        mod_p, mod_i = [each[:length] for each in whole], [each[length:] for each in whole]
        p, i = qkv(x[:length], mod_p, rope_freqs[:, :length]), qkv(x[length:], mod_i, rope_freqs[:, length:])
        of_time = mod_segments[0][2] // 3 * 3
        several, after = [], []
        for each in self.negatives:
            # What is called mask here are the kinds of tokens.
            tags = [1] * each.tokens.shape[1] if each.mask is None else each.mask.flatten().tolist()
            mod = mods([(n, n + 1, of_time + tag) for n, tag in enumerate(tags)])
            after.append(mod)
            several.append(qkv(each.tokens[0], mod, each.positions))
        z_p, z_i, *others = self.attend(index, p, i, several)
        for each, z_n, mod in zip(self.negatives, others, after, strict=True):
            each.tokens = finished(each.tokens[0], z_n, mod)[None]
        return torch.cat([finished(x[:length], z_p, mod_p), finished(x[length:], z_i, mod_i)])

    def picture_tokens(self, image):
        return slice(image - PICTURE - SOUND, image)

    def output(self, x, t, condition, subtractions=()):
        self._text = condition["context"].shape[1]
        return super().output(x, t, condition, subtractions)

    def run(self, x, t, condition):
        network = self.network
        # The host has these layers in fp32, whatever the others have.
        for layer in (network.video_patch_proj, network.audio_patch_proj, network.time_embedder.proj_in):
            layer.forward = InDouble(layer)
        for layer in (network.final_layer.video_out, network.final_layer.audio_out):
            layer.forward = InDouble(layer)
        payload = {"text_token_tags": condition.get("minimax_token_tags")}
        text = network.preprocess_text_embeds(condition["context"].double())
        output = network(_unpacked(x), t, text, transformer_options={}, minimax_payload=payload)
        return comfy.utils.pack_latents(output)[0]


class InDouble:
    def __init__(self, layer: torch.nn.Linear) -> None:
        self.layer = layer

    def __call__(self, x):
        return torch.nn.functional.linear(x.double(), self.layer.weight, self.layer.bias)


def _unpacked(latent: torch.Tensor) -> list[torch.Tensor]:
    return comfy.utils.unpack_latents(latent, [(1, *VIDEO), (1, *AUDIO)])


class VideoAndSound(JointCase):
    """Its latents are packed, as in the host: the video's and the sound's in one tensor (B, 1, N)."""

    def latent(self, rows: int = 1) -> torch.Tensor:
        return comfy.utils.pack_latents([torch.zeros(rows, *VIDEO), torch.zeros(rows, *AUDIO)])[0]

    def noise(self, rows: int = 1, seed: int = 7) -> torch.Tensor:
        return self.from_host(comfy.sample.prepare_noise(self.to_host(self.latent(rows)), seed))

    def to_host(self, latent: torch.Tensor) -> comfy.nested_tensor.NestedTensor:
        return comfy.nested_tensor.NestedTensor(_unpacked(latent))

    def from_host(self, latent: comfy.nested_tensor.NestedTensor) -> torch.Tensor:
        return comfy.utils.pack_latents(latent.unbind())[0]


def text_with_tags(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    condition: Condition = {"context": draw(generator, rows, tokens, CONTEXT)}
    if padding:  # here: tokens of a picture among the text's
        condition["minimax_token_tags"] = torch.tensor([0] * padding + [1] * (tokens - padding))
    return condition


def rope_frequencies(network: torch.nn.Module) -> None:
    network.rope.inv_freq.copy_(1.0 / 100.0 ** (torch.arange(4) / 4))


if hasattr(supported, "MiniMaxH3"):

    @joint_case("MiniMax H3")
    def minimax_h3() -> Case:
        patcher = build(supported.MiniMaxH3, MINIMAX, adjust=rope_frequencies)
        return VideoAndSound(
            name="MiniMax H3", patcher=patcher, reference=MiniMaxReference(patcher), make_condition=text_with_tags,
            latent_shape=VIDEO, patch=2, blocks=3, most_rows=1,
        )  # fmt: skip
