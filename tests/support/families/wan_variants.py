"""The other Wan networks, each with all that it takes beside the text: pictures, poses, audio, music, cameras."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.ldm.wan.model
import comfy.supported_models as supported
import torch

from .base import Case, Condition, build, draw
from .formula import attend, project, rotate
from .wan import ARGUMENTS, WanReference, text, vision_output

_FRAMES, _SIDE = 2, 8
SHAPE = (16, _FRAMES, _SIDE, _SIDE)  # channels, frames, height, width


class _Motion(torch.nn.Module):
    """Instead of Animate's encoder of faces, 27 million parameters that have nothing to do with text."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(width, 3))

    def get_motion(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((2, 3)) @ self.weight.T


def _small_motion(network: torch.nn.Module) -> None:
    network.motion_encoder = _Motion(16)


def _small_audio(network: torch.nn.Module) -> None:
    network.audio_proj = comfy.ldm.wan.model.AudioProjModel(
        seq_len=2, blocks=1, channels=8, intermediate_dim=12, output_dim=1536, context_tokens=16, dtype=torch.float32,
        device="cpu", operations=comfy.ops.disable_weight_init,
    )  # fmt: skip


def _music_attention(layer):
    def forward(x, freqs):
        parts = (project(x, each).unflatten(-1, (layer.num_heads, -1, 2)) for each in (layer.q_proj, layer.k_proj))
        q, k = (rotate(part, freqs).flatten(-3) for part in parts)
        return project(attend(q, k, project(x, layer.v_proj), layer.num_heads), layer.out_proj)

    return forward


class _Reference(WanReference):
    def __init__(self, patcher):
        super().__init__(patcher)
        for layer in getattr(self.network, "music_encoder", ()):
            layer.self_attn.forward = _music_attention(layer.self_attn)


Extras = Callable[[torch.Generator], Condition]


def _vace(generator: torch.Generator) -> Condition:
    """Two controls, so that a block of VACE's runs twice in a call."""
    return {
        "vace_frames": [draw(generator, 1, 32, *SHAPE[1:]) for _ in range(2)],
        "vace_mask": [torch.rand(1, 64, *SHAPE[1:], generator=generator) for _ in range(2)],
        "vace_strength": [1.0, 0.5],
    }


def _camera(generator: torch.Generator) -> Condition:
    return {
        **vision_output(generator),
        "concat_latent_image": draw(generator, 1, *SHAPE),
        "camera_conditions": draw(generator, 1, 24, _FRAMES, 8 * _SIDE, 8 * _SIDE),
    }


def _control(generator: torch.Generator) -> Condition:
    return {
        **vision_output(generator),
        "concat_latent_image": draw(generator, 1, 32, *SHAPE[1:]),
        "reference_latents": [draw(generator, 1, 16, 1, *SHAPE[2:])],
    }


def _speech(generator: torch.Generator) -> Condition:
    """The text's layers get no length of the image part there: the host's default, 257, is longer than the text."""
    return {
        "audio_embed": draw(generator, 1, 25, 32, 4 * _FRAMES),
        "reference_latents": [draw(generator, 1, 16, 1, *SHAPE[2:])],
        "reference_motion": draw(generator, 1, 16, 19, *SHAPE[2:]),
        "control_video": draw(generator, 1, *SHAPE),
    }


def _human(generator: torch.Generator) -> Condition:
    return {
        "audio_embed": draw(generator, 1, _FRAMES, 2, 1, 8),
        "reference_latents": [draw(generator, 1, 16, 1, *SHAPE[2:])],
    }


def _animation(generator: torch.Generator) -> Condition:
    return {
        **vision_output(generator),
        "concat_latent_image": draw(generator, 1, *SHAPE),
        "pose_video_latent": draw(generator, 1, 16, _FRAMES - 1, *SHAPE[2:]),
        "face_video_pixels": draw(generator, 1, 3, 4 * (_FRAMES - 1), 16, 16),
    }


def _pose(generator: torch.Generator) -> Condition:
    return {
        **vision_output(generator),
        "reference_latents": [draw(generator, 1, 16, 1, *SHAPE[2:])],
        "pose_video_latent": draw(generator, 1, 16, _FRAMES, _SIDE // 2, _SIDE // 2),
    }


def _masked_pose(generator: torch.Generator) -> Condition:
    return {
        **_pose(generator),
        "driving_mask_28ch": draw(generator, 1, _FRAMES, 28, _SIDE // 2, _SIDE // 2),
        "ref_mask_28ch": draw(generator, 1, 1 + _FRAMES, 28, *SHAPE[2:]),
    }


def _dance(generator: torch.Generator) -> Condition:
    second = vision_output(generator)["clip_vision_output"]
    return {
        **vision_output(generator),
        "clip_vision_output_ref": second,
        "concat_latent_image": draw(generator, 1, *SHAPE),
        "audio_embed": draw(generator, 1, 9, 35),
    }


@dataclass(frozen=True)
class _Variant:
    config: str
    arguments: dict[str, Any]
    extras: Extras = field(default=lambda generator: {})
    adjust: Callable[[torch.nn.Module], None] | None = None
    blocks: int = 3


_VARIANTS = {
    "Wan 2.1 VACE": _Variant("WAN21_Vace", {"model_type": "vace", "vace_layers": 3, "vace_in_dim": 96}, _vace),
    "Wan 2.1 Camera": _Variant("WAN21_Camera", {"model_type": "camera", "in_dim": 32}, _camera),
    "Wan 2.1 Fun-Control": _Variant(
        "WAN21_FunControl2V", {"model_type": "i2v", "in_dim": 48, "in_dim_ref_conv": 16}, _control
    ),
    "Wan 2.2 S2V": _Variant(
        "WAN22_S2V", {"model_type": "s2v", "audio_dim": 32, "audio_inject_layers": [0, 2]}, _speech
    ),
    "Wan 2.1 HuMo": _Variant("WAN21_HuMo", {"model_type": "humo"}, _human, _small_audio),
    "Wan 2.2 Animate": _Variant(
        "WAN22_Animate",
        {"model_type": "animate", "in_dim": 36, "motion_encoder_dim": 16, "num_layers": 5},
        _animation,
        _small_motion,
        blocks=5,
    ),
    "Wan 2.1 SCAIL": _Variant("WAN21_SCAIL", {"model_type": "scail"}, _pose),
    "Wan 2.1 SCAIL-2": _Variant("WAN21_SCAIL2", {"model_type": "scail2"}, _masked_pose),
    "WanDancer": _Variant(
        "WAN22_WanDancer", {"model_type": "wandancer", "in_dim": 36, "audio_inject_layers": [0, 2]}, _dance
    ),
    "Wan 2.1 Causal": _Variant("WAN21_CausalAR_T2V", {"model_type": "t2v"}),
}
VARIANTS = [name for name, variant in _VARIANTS.items() if hasattr(supported, variant.config)]
"""Those that this ComfyUI has."""


@functools.cache
def variant(name: str) -> Case:
    settings = _VARIANTS[name]
    arguments = {**ARGUMENTS, **settings.arguments}
    patcher = build(getattr(supported, settings.config), arguments, adjust=settings.adjust)

    def condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
        return {**text(generator, tokens, rows, padding), **settings.extras(generator)}

    return Case(
        name=name, patcher=patcher, reference=_Reference(patcher), make_condition=condition, latent_shape=SHAPE,
        patch=2, blocks=settings.blocks,
    )  # fmt: skip
