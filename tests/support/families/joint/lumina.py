"""NextDiT: Lumina 2, and Z-Image, which pads text and picture to multiples of 32."""

from __future__ import annotations

from typing import Any

import comfy.supported_models as supported
import torch

from ..base import CONTEXT, Case, Condition, build, draw
from .case import JointCase, joint_case
from .formula import QKV, JointReference, attend, flat, heads, rotated

_LUMINA: dict[str, Any] = {
    "image_model": "lumina2", "in_channels": 16, "dim": 64, "n_layers": 3, "n_refiner_layers": 2, "n_heads": 4,
    "n_kv_heads": 4, "cap_feat_dim": CONTEXT, "axes_dims": [4, 6, 6], "axes_lens": [300, 32, 32], "qk_norm": True,
}  # fmt: skip
_Z_IMAGE: dict[str, Any] = {
    **_LUMINA, "dim": 256, "axes_dims": [16, 24, 24], "z_image_modulation": True, "pad_tokens_multiple": 32,
    "time_scale": 1000.0,
}  # fmt: skip


class LuminaReference(JointReference):
    def blocks(self):
        network = self.network
        for block in (*network.context_refiner, *network.noise_refiner):
            block.forward = Refine(self, block)
        return [(block, self.block) for block in network.layers]

    def prepare(self, condition, x):
        network, multiple = self.network, self.network.pad_tokens_multiple or 1
        tokens = network.cap_embedder(condition["context"].double()).expand(x.shape[0], -1, -1)
        missing = -tokens.shape[1] % multiple
        if missing:
            tokens = torch.cat([tokens, network.cap_pad_token.expand(x.shape[0], missing, -1)], 1)
        ids = torch.zeros(1, tokens.shape[1], 3)
        ids[..., 0] = 1.0 + torch.arange(tokens.shape[1])
        positions = network.rope_embedder(ids).movedim(1, 2)
        for block in network.context_refiner:
            tokens = block(tokens, None, positions)
        return tokens, positions, None

    def moved(self, positions):
        return positions.roll(1, 1)

    def qkv(self, block, x, scale, positions):
        attention = block.attention
        h = block.attention_norm1(x) if scale is None else block.attention_norm1(x) * (1 + scale)
        q, k, v = (heads(part, attention.n_local_heads) for part in attention.qkv(h).chunk(3, -1))
        at = positions.movedim(2, 1)
        return QKV(rotated(attention.q_norm(q), at), rotated(attention.k_norm(k), at), v)

    def finished(self, block, x, z, mod):
        gate_attention, scale, gate = 1.0, 0.0, 1.0
        if mod is not None:
            gate_attention, scale, gate = mod[1].tanh(), mod[2], mod[3].tanh()
        x = x + gate_attention * block.attention_norm2(block.attention.out(z))
        return x + gate * block.ffn_norm2(block.feed_forward(block.ffn_norm1(x) * (1 + scale)))

    def mods(self, block, adaln_input):
        return [each.unsqueeze(1) for each in block.adaLN_modulation(adaln_input).chunk(4, 1)]

    def block(self, block, index, x, x_mask, freqs_cis, adaln_input, timestep_zero_index=None):
        mod = self.mods(block, adaln_input)
        length = x.shape[1] - self._image
        p, i = (
            self.qkv(block, x[:, part], mod[0], freqs_cis[:, part]) for part in (slice(length), slice(length, None))
        )
        several = [self.qkv(block, each.tokens, mod[0], each.positions) for each in self.negatives]
        z_p, z_i, *others = self.attend(index, p, i, several)
        for each, z_n in zip(self.negatives, others, strict=True):
            each.tokens = self.finished(block, each.tokens, z_n, mod)
        return self.finished(block, x, torch.cat([z_p, z_i], 1), mod)

    def picture_tokens(self, image):
        return slice(0, self._picture)

    def output(self, x, *args, **kwargs):
        multiple = self.network.pad_tokens_multiple or 1
        self._picture = (x.shape[-1] // 2) * (x.shape[-2] // 2)
        self._image = -(-self._picture // multiple) * multiple
        return super().output(x, *args, **kwargs)


class Refine:
    """A refiner's block: attention of the text alone, or of the picture alone."""

    def __init__(self, reference: LuminaReference, block: torch.nn.Module) -> None:
        self.reference, self.block = reference, block

    def __call__(self, x, mask, positions, adaln_input=None, timestep_zero_index=None, transformer_options=None):
        reference, block = self.reference, self.block
        mod = None if adaln_input is None else reference.mods(block, adaln_input)
        own = reference.qkv(block, x, None if mod is None else mod[0], positions)
        return reference.finished(block, x, flat(attend(own.q, own)), mod)


def _text(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, CONTEXT)}


def _case(name: str, config: Any, arguments: dict[str, Any]) -> Case:
    patcher = build(config, arguments)
    return JointCase(
        name=name, patcher=patcher, reference=LuminaReference(patcher), make_condition=_text,
        latent_shape=(16, 12, 16), patch=2, blocks=3,
    )  # fmt: skip


@joint_case("Lumina 2")
def lumina2() -> Case:
    return _case("Lumina 2", supported.Lumina2, _LUMINA)


@joint_case("Z-Image")
def z_image() -> Case:
    return _case("Z-Image", supported.ZImage, _Z_IMAGE)
