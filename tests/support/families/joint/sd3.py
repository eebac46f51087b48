"""Stable Diffusion 3, and 3.5 medium with a second attention of the image alone in its first blocks."""

from __future__ import annotations

from typing import Any

import comfy.supported_models as supported
import torch

from ..base import CONTEXT, Case, Condition, build, draw
from .case import JointCase, joint_case
from .formula import QKV, JointReference, attend, flat

_SD3: dict[str, Any] = {
    "in_channels": 16, "patch_size": 2, "depth": 3, "input_size": None, "adm_in_channels": 32, "num_patches": 256,
    "pos_embed_max_size": 16, "pos_embed_scaling_factor": None, "qk_norm": "rms",
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 192}},
}  # fmt: skip


class SD3Reference(JointReference):
    def blocks(self):
        return [(block, self.block) for block in self.network.joint_blocks]

    def prepare(self, condition, x):
        context = self.network.context_embedder(condition["context"].double())
        return context.expand(x.shape[0], -1, -1), None, None

    def block(self, block, index, context, x, c, **_):
        text, image = block.context_block, block.x_block

        def qkv(attn, h):
            parts = attn.qkv(h).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
            return QKV(attn.ln_q(parts[0]), attn.ln_k(parts[1]), parts[2])

        def mods(part):
            return [each.unsqueeze(1) for each in part.adaLN_modulation(c).split(part.attn.qkv.in_features, 1)]

        def finished(part, x, z, mod, extra=0.0):
            if part.pre_only:
                return None
            x = x + mod[2] * part.attn.proj(z) + extra
            return x + mod[5] * part.mlp((1 + mod[4]) * part.norm2(x) + mod[3])

        mod_t, mod_i = mods(text), mods(image)

        def before(part, x, mod):
            return qkv(part.attn, (1 + mod[1]) * part.norm1(x) + mod[0])

        extra = 0.0
        if image.x_block_self_attn:
            own = qkv(image.attn2, (1 + mod_i[7]) * image.norm1(x) + mod_i[6])
            extra = mod_i[8] * image.attn2.proj(flat(attend(own.q, own)))
        several = [before(text, each.tokens, mod_t) for each in self.negatives]
        z_p, z_i, *others = self.attend(index, before(text, context, mod_t), before(image, x, mod_i), several)
        for each, z_n in zip(self.negatives, others, strict=True):
            each.tokens = finished(text, each.tokens, z_n, mod_t)
        return finished(text, context, z_p, mod_t), finished(image, x, z_i, mod_i, extra)


def _text(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, CONTEXT), "pooled_output": draw(generator, rows, 32)}


def _adjust(network: torch.nn.Module) -> None:
    network.pos_embed.normal_(generator=torch.Generator().manual_seed(5)).mul_(0.3)


def _case(name: str, arguments: dict[str, Any]) -> Case:
    patcher = build(supported.SD3, {**_SD3, **arguments}, adjust=_adjust)
    return JointCase(
        name=name, patcher=patcher, reference=SD3Reference(patcher), make_condition=_text,
        latent_shape=(16, 12, 16), patch=2, blocks=3,
    )  # fmt: skip


@joint_case("SD3")
def sd3() -> Case:
    return _case("SD3", {})


@joint_case("SD3.5 medium")
def sd35_medium() -> Case:
    return _case("SD3.5 medium", {"x_block_self_attn_layers": [0, 1]})
