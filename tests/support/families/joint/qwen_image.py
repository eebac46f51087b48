"""Qwen-Image: two streams, a mask over the text, the text's positions behind the picture's."""

from __future__ import annotations

from typing import Any

import comfy.supported_models as supported
import torch

from ..base import CONTEXT, Case, Condition, build, draw, padding_mask
from .case import JointCase, joint_case
from .formula import QKV, JointReference, heads, rotated

_QWEN: dict[str, Any] = {
    "image_model": "qwen_image", "num_layers": 3, "attention_head_dim": 16, "num_attention_heads": 4,
    "joint_attention_dim": CONTEXT, "axes_dims_rope": (4, 6, 6), "in_channels": 64, "out_channels": 16,
}  # fmt: skip


class QwenReference(JointReference):
    def blocks(self):
        return [(block, self.block) for block in self.network.transformer_blocks]

    def prepare(self, condition, x):
        network, rows = self.network, x.shape[0]
        tokens = network.txt_in(network.txt_norm(condition["context"].double()))
        start = max(-(-x.shape[-1] // 2) // 2, -(-x.shape[-2] // 2) // 2)
        positions = network.pe_embedder((start + torch.arange(tokens.shape[1])).reshape(1, -1, 1).repeat(1, 1, 3))
        mask = condition.get("attention_mask")
        return tokens.expand(rows, -1, -1), positions, None if mask is None else mask.expand(rows, -1)

    def block(self, block, index, hidden_states, encoder_hidden_states, encoder_hidden_states_mask, temb,
              image_rotary_emb, timestep_zero_index=None):  # fmt: skip
        attn, length = block.attn, encoder_hidden_states.shape[1]
        mod_i = [each.unsqueeze(1) for each in block.img_mod(temb).chunk(6, -1)]
        mod_t = [each.unsqueeze(1) for each in block.txt_mod(temb).chunk(6, -1)]

        def image_qkv(x):
            h = (1 + mod_i[1]) * block.img_norm1(x) + mod_i[0]
            q, k, v = (heads(layer(h), attn.heads) for layer in (attn.to_q, attn.to_k, attn.to_v))
            at = image_rotary_emb[:, :, length:]
            return QKV(rotated(attn.norm_q(q), at), rotated(attn.norm_k(k), at), v)

        def text_qkv(x, at, mask):
            h = (1 + mod_t[1]) * block.txt_norm1(x) + mod_t[0]
            q, k, v = (heads(layer(h), attn.heads) for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
            return QKV(rotated(attn.norm_added_q(q), at), rotated(attn.norm_added_k(k), at), v, mask)

        def finished(x, z, out, norm, mlp, mod):
            x = x + mod[2] * out(z)
            return x + mod[5] * mlp((1 + mod[4]) * norm(x) + mod[3])

        mask = None if encoder_hidden_states_mask is None else (encoder_hidden_states_mask == 0).long()
        p = text_qkv(encoder_hidden_states, image_rotary_emb[:, :, :length], mask)
        several = [text_qkv(each.tokens, each.positions, each.mask) for each in self.negatives]
        z_p, z_i, *others = self.attend(index, p, image_qkv(hidden_states), several)
        after = attn.to_add_out, block.txt_norm2, block.txt_mlp, mod_t
        for each, z_n in zip(self.negatives, others, strict=True):
            each.tokens = finished(each.tokens, z_n, *after)
        image = finished(hidden_states, z_i, attn.to_out[0], block.img_norm2, block.img_mlp, mod_i)
        return finished(encoder_hidden_states, z_p, *after), image


def text_with_mask(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    condition = {"context": draw(generator, rows, tokens, CONTEXT)}
    return {**condition, "attention_mask": padding_mask(tokens, padding, rows)} if padding else condition


@joint_case("Qwen-Image")
def qwen_image() -> Case:
    patcher = build(supported.QwenImage, _QWEN)
    return JointCase(
        name="Qwen-Image", patcher=patcher, reference=QwenReference(patcher), make_condition=text_with_mask,
        latent_shape=(16, 1, 12, 16), patch=2, blocks=3,
    )  # fmt: skip
