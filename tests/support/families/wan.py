"""Wan 2.1: text to video, image to video."""

from __future__ import annotations

import functools
from typing import Any

import comfy.clip_vision
import comfy.supported_models as supported
import torch

from .base import CONTEXT, Case, Condition, build, draw, host_inputs
from .formula import TransformerReference, WrittenOutAttention, attend, project, rms_norm, rotate, to_rows

ARGUMENTS: dict[str, Any] = {
    "image_model": "wan2.1", "dim": 64, "ffn_dim": 96, "freq_dim": 32, "text_dim": CONTEXT, "num_heads": 4,
    "num_layers": 3,
}  # fmt: skip
SHAPE = (16, 2, 6, 8)  # channels, frames, height, width
_VISION_TOKENS, _VISION_WIDTH = 5, 1280


class _Attention(WrittenOutAttention):
    def response(self, q, tokens, mask):
        layer = self.layer
        k, v = rms_norm(project(tokens, layer.k), layer.norm_k), project(tokens, layer.v)
        return attend(q, k, v, layer.num_heads)

    def __call__(self, x, context, context_img_len=None, transformer_options=None):
        layer = self.layer
        q = rms_norm(project(x, layer.q), layer.norm_q)
        if not hasattr(layer, "k_img"):
            return self.steer(q, self.response(q, context, None), layer.o)
        image, text = context[:, :context_img_len], context[:, context_img_len:]
        k_img, v_img = rms_norm(project(image, layer.k_img), layer.norm_k_img), project(image, layer.v_img)
        z_img = attend(q, k_img, v_img, layer.num_heads)
        return self.steer(q, self.response(q, text, None) + z_img, layer.o)


def _self_attention(layer):
    def forward(x, freqs, kv_cache=None, transformer_options=None):
        q, k = rms_norm(project(x, layer.q), layer.norm_q), rms_norm(project(x, layer.k), layer.norm_k)
        q, k = (rotate(part.unflatten(-1, (layer.num_heads, -1, 2)), freqs).flatten(-3) for part in (q, k))
        v = project(x, layer.v)
        if kv_cache is not None:  # of an autoregressive model: what came before
            k, v = torch.cat([*kv_cache["k"], k], 1), torch.cat([*kv_cache["v"], v], 1)
            kv_cache["now"] = k, v
        return project(attend(q, k, v, layer.num_heads), layer.o)

    return forward


def _patchify(embed):
    """The host always patchifies in fp32."""
    return lambda x: torch.nn.functional.conv3d(x.double(), embed.weight, embed.bias, embed.stride)


class WanReference(TransformerReference):
    attention = _Attention

    def __init__(self, patcher):
        super().__init__(patcher)
        for name, module in self.network.named_modules():
            if name.endswith("self_attn") and hasattr(module, "norm_q"):
                module.forward = _self_attention(module)
            elif "patch_embedding" in name and name != "pose_patch_embedding":
                module.forward = _patchify(module)

    def cross_attentions(self):
        return [block.cross_attn for block in (*self.network.blocks, *getattr(self.network, "vace_blocks", ()))]

    def prepare(self, condition, rows):
        return self.network.text_embedding(to_rows(condition["context"].double(), rows)), None

    def run(self, x, t, condition):
        inputs = host_inputs(self.patcher, x, condition)
        if "c_concat" in inputs:
            x = torch.cat([x, inputs.pop("c_concat")], 1)
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)


def text(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, CONTEXT)}


def vision_output(generator: torch.Generator) -> Condition:
    """A picture, seen by CLIP."""
    vision = comfy.clip_vision.Output()
    vision["penultimate_hidden_states"] = draw(generator, 1, _VISION_TOKENS, _VISION_WIDTH)
    return {"clip_vision_output": vision}


def text_and_image(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    """Like WanImageToVideo's; every prompt has its own image, so that use of the negative's image would be detected."""
    first_frame_known = torch.ones(1, 1, *SHAPE[1:])
    first_frame_known[:, :, :1] = 0.0
    return {
        **text(generator, tokens, rows, padding),
        **vision_output(generator),
        "concat_latent_image": draw(generator, 1, *SHAPE),
        "concat_mask": first_frame_known,
    }


@functools.cache
def t2v(seed: int = 0) -> Case:
    patcher = build(supported.WAN21_T2V, {**ARGUMENTS, "model_type": "t2v"}, seed=seed)
    return Case(
        name="Wan 2.1 T2V", patcher=patcher, reference=WanReference(patcher), make_condition=text,
        latent_shape=SHAPE, patch=2, blocks=3,
    )  # fmt: skip


def second_t2v() -> Case:
    """Another one, with other weights."""
    return t2v(1)


@functools.cache
def i2v() -> Case:
    patcher = build(supported.WAN21_I2V, {**ARGUMENTS, "model_type": "i2v", "in_dim": 36})
    return Case(
        name="Wan 2.1 I2V", patcher=patcher, reference=WanReference(patcher), make_condition=text_and_image,
        latent_shape=SHAPE, patch=2, blocks=3,
    )  # fmt: skip
