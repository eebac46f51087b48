"""Flux, Flux 2 and Chroma: two-stream and one-stream blocks."""

from __future__ import annotations

from typing import Any

import comfy.supported_models as supported
import torch

from ..base import CONTEXT, Case, Condition, build, draw
from .case import JointCase, joint_case
from .formula import QKV, JointReference, heads, rotated

_FLUX: dict[str, Any] = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": CONTEXT,
    "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 6, 6],
    "theta": 10000, "patch_size": 2, "qkv_bias": True, "txt_ids_dims": [],
}  # fmt: skip
_FLUX_2: dict[str, Any] = {
    **_FLUX, "image_model": "flux2", "guidance_embed": False, "txt_ids_dims": [3], "vec_in_dim": None,
    "axes_dim": [4, 4, 4, 4], "theta": 2000, "in_channels": 128, "out_channels": 128, "patch_size": 1,
    "qkv_bias": False, "ops_bias": False, "global_modulation": True, "mlp_silu_act": True,
    "default_ref_method": "index", "ref_index_scale": 10.0,
}  # fmt: skip
_CHROMA: dict[str, Any] = {
    **_FLUX, "image_model": "chroma", "in_channels": 64, "out_channels": 64, "in_dim": 64,
    "out_dim": 64, "hidden_dim": 64, "n_layers": 1,
}  # fmt: skip


def modulated(x: torch.Tensor, mod: Any) -> torch.Tensor:
    return (1 + mod.scale) * x + mod.shift


class FluxReference(JointReference):
    def blocks(self):
        network = self.network
        double = [(block, self.double) for block in network.double_blocks]
        return double + [(block, self.single) for block in network.single_blocks]

    def prepare(self, condition, x):
        context = condition["context"].double()
        axes = getattr(self.network.params, "txt_ids_dims", [])
        if axes == [3]:  # Flux 2 pads on the left
            context = torch.nn.functional.pad(context, (0, 0, 512 - context.shape[1], 0))
        ids = torch.zeros(1, context.shape[1], len(self.network.params.axes_dim))
        for axis in axes:
            ids[..., axis] = torch.arange(context.shape[1])
        tokens = self.network.txt_in(context).expand(x.shape[0], -1, -1)
        return tokens, self.network.pe_embedder(ids), None

    def double(self, block, index, img, txt, vec, pe, attn_mask=None, **_):
        (img1, img2), (txt1, txt2) = (block.img_mod(vec), block.txt_mod(vec)) if block.modulation else vec
        length = txt.shape[1]

        def qkv(x, norm, attn, mod, positions):
            parts = attn.qkv(modulated(norm(x), mod)).chunk(3, -1)
            q, k, v = (heads(part, block.num_heads) for part in parts)
            q, k = attn.norm.query_norm(q), attn.norm.key_norm(k)
            return QKV(rotated(q, positions), rotated(k, positions), v)

        def finished(x, z, attn, norm, mlp, mod1, mod2):
            x = x + mod1.gate * attn.proj(z)
            return x + mod2.gate * mlp(modulated(norm(x), mod2))

        text = block.txt_norm1, block.txt_attn, txt1
        i = qkv(img, block.img_norm1, block.img_attn, img1, pe[:, :, length:])
        p = qkv(txt, *text, pe[:, :, :length])
        several = [qkv(each.tokens, *text, each.positions) for each in self.negatives]
        z_p, z_i, *others = self.attend(index, p, i, several)
        after = block.txt_attn, block.txt_norm2, block.txt_mlp, txt1, txt2
        for each, z_n in zip(self.negatives, others, strict=True):
            each.tokens = finished(each.tokens, z_n, *after)
        img = finished(img, z_i, block.img_attn, block.img_norm2, block.img_mlp, img1, img2)
        return img, finished(txt, z_p, *after)

    def single(self, block, index, x, vec, pe, attn_mask=None, **_):
        mod = block.modulation(vec)[0] if block.modulation else vec
        length = pe.shape[2] - self.image_tokens(x, pe)

        def qkv(x, positions):
            parts, mlp = block.linear1(modulated(block.pre_norm(x), mod)).split(
                [3 * block.hidden_size, block.mlp_hidden_dim_first], -1
            )
            q, k, v = (heads(part, block.num_heads) for part in parts.chunk(3, -1))
            q, k = block.norm.query_norm(q), block.norm.key_norm(k)
            return QKV(rotated(q, positions), rotated(k, positions), v), mlp

        def finished(x, z, mlp):
            return x + mod.gate * block.linear2(torch.cat([z, block.mlp_act(mlp)], -1))

        p, mlp_p = qkv(x[:, :length], pe[:, :, :length])
        i, mlp_i = qkv(x[:, length:], pe[:, :, length:])
        several = [qkv(each.tokens, each.positions) for each in self.negatives]
        z_p, z_i, *others = self.attend(index, p, i, [each for each, _ in several])
        for each, z_n, (_, mlp) in zip(self.negatives, others, several, strict=True):
            each.tokens = finished(each.tokens, z_n, mlp)
        return torch.cat([finished(x[:, :length], z_p, mlp_p), finished(x[:, length:], z_i, mlp_i)], 1)

    def output(self, x, *args, **kwargs):
        patch = self.network.patch_size
        self._image = (x.shape[-1] // patch) * (x.shape[-2] // patch)
        return super().output(x, *args, **kwargs)

    def image_tokens(self, x, pe):
        return self._image


def _text(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, CONTEXT), "pooled_output": draw(generator, rows, 32)}


def _case(name: str, config: Any, arguments: dict[str, Any], shape: tuple[int, ...], patch: int) -> Case:
    patcher = build(config, arguments)
    return JointCase(
        name=name, patcher=patcher, reference=FluxReference(patcher), make_condition=_text, latent_shape=shape,
        patch=patch, blocks=4,
    )  # fmt: skip


@joint_case("Flux")
def flux() -> Case:
    return _case("Flux", supported.Flux, {**_FLUX, "guidance_embed": True}, (16, 12, 16), 2)


@joint_case("Flux 2")
def flux2() -> Case:
    return _case("Flux 2", supported.Flux2, _FLUX_2, (128, 6, 8), 1)


@joint_case("Chroma")
def chroma() -> Case:
    return _case("Chroma", supported.Chroma, _CHROMA, (16, 12, 16), 2)
