"""Krea 2: one stream, keys and values shared by several heads, a fusion of the text encoder's layers before it."""

from __future__ import annotations

from typing import Any

import comfy.supported_models as supported
import torch

from ..base import CONTEXT, Case, Condition, build, draw
from .case import JointCase, joint_case
from .formula import QKV, JointReference, attend, flat, heads, rotated

KREA_2: dict[str, Any] = {
    "image_model": "krea2", "features": 128, "tdim": 32, "txtdim": 12, "heads": 4, "kvheads": 2, "layers": 3,
    "txtlayers": 4, "txtheads": 2, "txtkvheads": 2,
}  # fmt: skip


def _normed(x: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    """The host computes it in fp32, whatever the input: x / sqrt(mean(x^2) + eps) * (1 + w)"""
    return x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt() * (1 + layer.scale)


class Krea2Reference(JointReference):
    def blocks(self):
        for block in (*self.network.txtfusion.layerwise_blocks, *self.network.txtfusion.refiner_blocks):
            block.forward = Fusion(self, block)
        self.network.txtmlp[0].forward = Norm(self.network.txtmlp[0])
        self.network.last.norm.forward = Norm(self.network.last.norm)
        return [(block, self.block) for block in self.network.blocks]

    def prepare(self, condition, x):
        context = condition["context"].double().expand(x.shape[0], -1, -1)
        network = self.network
        tokens = network.txtmlp(network.txtfusion(context.unflatten(-1, (network.txtlayers, network.txtdim))))
        return tokens, network.pe_embedder(torch.zeros(1, tokens.shape[1], 3)), None

    def qkv(self, attn, x, positions):
        q, k, v = heads(attn.wq(x), attn.heads), heads(attn.wk(x), attn.kvheads), heads(attn.wv(x), attn.kvheads)
        q, k = _normed(q, attn.qknorm.qnorm), _normed(k, attn.qknorm.knorm)
        if positions is not None:
            q, k = rotated(q, positions), rotated(k, positions)
        k, v = (each.repeat_interleave(attn.heads // attn.kvheads, 1) for each in (k, v))
        return QKV(q, k, v)

    def projected(self, attn, x, z):
        return attn.wo(z * torch.sigmoid(attn.gate(x)))

    def block(self, block, index, x, vec, freqs, mask=None, timestep_zero_index=None):
        scale, shift, gate, scale_2, shift_2, gate_2 = (vec + block.mod.lin).chunk(6, -1)
        length = x.shape[1] - self._image

        def before(x):
            return (1 + scale) * _normed(x, block.prenorm) + shift

        def finished(x, z):
            x = x + gate * self.projected(block.attn, before(x), z)
            return x + gate_2 * block.mlp((1 + scale_2) * _normed(x, block.postnorm) + shift_2)

        text, image = x[:, :length], x[:, length:]
        p = self.qkv(block.attn, before(text), freqs[:, :, :length])
        i = self.qkv(block.attn, before(image), freqs[:, :, length:])
        several = [self.qkv(block.attn, before(each.tokens), each.positions) for each in self.negatives]
        z_p, z_i, *others = self.attend(index, p, i, several)
        for each, z_n in zip(self.negatives, others, strict=True):
            each.tokens = finished(each.tokens, z_n)
        return torch.cat([finished(text, z_p), finished(image, z_i)], 1)

    def output(self, x, *args, **kwargs):
        self._image = (x.shape[-1] // 2) * (x.shape[-2] // 2)
        return super().output(x, *args, **kwargs)


class Norm:
    def __init__(self, layer: torch.nn.Module) -> None:
        self.layer = layer

    def __call__(self, x):
        return _normed(x, self.layer)


class Fusion:
    """A block of the text's fusion: attention of the text alone."""

    def __init__(self, reference: Krea2Reference, block: torch.nn.Module) -> None:
        self.reference, self.block = reference, block

    def __call__(self, x, mask=None, transformer_options=None):
        block, reference = self.block, self.reference
        h = _normed(x, block.prenorm)
        own = reference.qkv(block.attn, h, None)
        x = x + reference.projected(block.attn, h, flat(attend(own.q, own)))
        return x + block.mlp(_normed(x, block.postnorm))


def _text(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, CONTEXT)}


if hasattr(supported, "Krea2"):

    @joint_case("Krea 2")
    def krea2() -> Case:
        patcher = build(supported.Krea2, KREA_2)
        return JointCase(
            name="Krea 2", patcher=patcher, reference=Krea2Reference(patcher), make_condition=_text,
            latent_shape=(16, 1, 12, 16), patch=2, blocks=3,
        )  # fmt: skip
