"""LTX-2 and 2.3: video and sound in one network, each with attentions to its own form of the text."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import comfy.nested_tensor
import comfy.sample
import comfy.supported_models as supported
import comfy.utils
import torch

from .base import CONTEXT, Case, Condition, build, draw
from .formula import TransformerReference, to_rows
from .ltxv import LTXAttention, noise_level, written_out

_VIDEO, _AUDIO = (128, 2, 4, 6), (8, 5, 16)
"""Channels, frames, height, width; channels, time, frequencies."""
_WIDTH, _AUDIO_WIDTH = 64, 32

_GUIDES = ("keyframe_idxs", "guide_attention_entries")
"""What LTXVAddGuide adds to a prompt."""

_SHARED: dict[str, Any] = {
    "image_model": "ltxav", "num_layers": 2, "connector_num_layers": 1,
    "cross_attention_dim": _WIDTH, "attention_head_dim": 16, "num_attention_heads": 4,
    "audio_cross_attention_dim": _AUDIO_WIDTH, "audio_attention_head_dim": 8, "audio_num_attention_heads": 4,
}  # fmt: skip
_VERSIONS: dict[str, dict[str, Any]] = {
    # One projection of the text, split after the connectors.
    "LTX-2": {
        "caption_channels": CONTEXT, "connector_attention_head_dim": 12, "connector_num_attention_heads": 4,
    },
    # One text for each stream, modulated, and gates in each attention.
    "LTX-2.3": {
        "caption_channels": 3840, "caption_proj_before_connector": True, "caption_projection_first_linear": False,
        "cross_attention_adaln": True, "apply_gated_attention": True, "rope_type": "split",
        "connector_attention_head_dim": 16, "connector_num_attention_heads": 4,
        "audio_connector_attention_head_dim": 8, "audio_connector_num_attention_heads": 4,
    },
}  # fmt: skip


class _Reference(TransformerReference):
    attention = LTXAttention

    def __init__(self, patcher, video=_VIDEO, audio=_AUDIO):
        super().__init__(patcher)
        self.shapes = [(1, *video), (1, *audio)]
        blocks = self.network.transformer_blocks
        for name, module in self.network.named_modules():
            if name.endswith(("attn1", "to_video_attn", "to_audio_attn")):
                module.forward = written_out(module)
        for index, (block, (video, audio)) in enumerate(zip(blocks, self._pairs(), strict=True)):
            video.block, audio.block = f"video.{index}", f"audio.{index}"
            video.table = getattr(block, "prompt_scale_shift_table", None)
            audio.table = getattr(block, "audio_prompt_scale_shift_table", None)
            video.part, audio.part = slice(None, _WIDTH), slice(_WIDTH, None)

    def _pairs(self):
        return list(zip(self.attentions[::2], self.attentions[1::2], strict=True))

    def cross_attentions(self):
        return [each for block in self.network.transformer_blocks for each in (block.attn2, block.audio_attn2)]

    def prepare(self, condition, rows):
        """Both forms of the text, one beside the other, (B, T, C + Ca)."""
        network = self.network
        text = network.preprocess_text_embeds(condition["context"].double(), unprocessed=True)
        video, audio = text.split([text.shape[-1] - self._audio_text(text), self._audio_text(text)], -1)
        if not network.caption_proj_before_connector:
            video, audio = network.caption_projection(video), network.audio_caption_projection(audio)
        return to_rows(torch.cat([video, audio], -1), rows), None

    def _audio_text(self, text):
        return _AUDIO_WIDTH if self.network.caption_proj_before_connector else text.shape[-1] // 2

    def run(self, x, t, condition):
        network = self.network
        x = [x] if x.ndim == 5 else comfy.utils.unpack_latents(x, self.shapes)
        times, more = (t, t), {key: each for key, each in condition.items() if key in _GUIDES}
        if "concat_mask" in condition:
            # The share of the noise in each token; its channels, and frequencies of sound, have the same.
            video, audio = comfy.utils.unpack_latents(condition["concat_mask"], self.shapes)
            shares = video[:, 0].flatten(1), audio[:, 0, :, 0]
            times = tuple(t[:, None, None] * share[..., None] for share in shares)
            more["denoise_mask"] = video[:, :1]
        for attentions in self._pairs():
            for attention, name, time in zip(attentions, ("", "audio_"), times, strict=True):
                if attention.table is not None:
                    highest = time.flatten(1).amax(1) if time.ndim > 1 else time
                    attention.level = noise_level(network, f"{name}prompt_adaln_single", highest)
        text = network.preprocess_text_embeds(condition["context"].double(), unprocessed=True)
        output = network(x, times, to_rows(text, t.shape[0]), None, frame_rate=25, transformer_options={}, **more)
        return output if len(x) == 1 else comfy.utils.pack_latents(output)[0]


class _TwoStreams(Case):
    """Its latents are packed, as in the host: the video's and the sound's in one tensor (B, 1, N)."""

    def latent(self, rows: int = 1) -> torch.Tensor:
        return comfy.utils.pack_latents([torch.zeros(rows, *shape[1:]) for shape in self.reference.shapes])[0]

    def noise(self, rows: int = 1, seed: int = 7) -> torch.Tensor:
        return self.from_host(comfy.sample.prepare_noise(self.to_host(self.latent(rows)), seed))

    def to_host(self, latent: torch.Tensor) -> comfy.nested_tensor.NestedTensor:
        return comfy.nested_tensor.NestedTensor(comfy.utils.unpack_latents(latent, self.reference.shapes))

    def from_host(self, latent: comfy.nested_tensor.NestedTensor) -> torch.Tensor:
        return comfy.utils.pack_latents(latent.unbind())[0]


def resized(case: Case, video: tuple[int, ...], audio: tuple[int, ...] = _AUDIO) -> Case:
    """The same model, for latents of other shapes."""
    return dataclasses.replace(case, latent_shape=video, reference=_Reference(case.patcher, video, audio))


def _condition(width: int):
    def condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
        return {"context": draw(generator, rows, tokens, width), "unprocessed_ltxav_embeds": True}

    return condition


def _without_registers(network: torch.nn.Module) -> None:
    """The connectors' learned tokens fill each prompt to 1024 tokens, which takes most of the time."""
    for connector in (network.video_embeddings_connector, network.audio_embeddings_connector):
        connector.num_learnable_registers = 0


@functools.cache
def ltx2(version: str, *, registers: bool = False) -> Case:
    adjust = None if registers else _without_registers
    patcher = build(supported.LTXAV, {**_SHARED, **_VERSIONS[version]}, adjust=adjust)
    width = CONTEXT if version == "LTX-2" else _WIDTH + _AUDIO_WIDTH
    return _TwoStreams(
        name=version, patcher=patcher, reference=_Reference(patcher), make_condition=_condition(width),
        latent_shape=_VIDEO, patch=1, blocks=2,
    )  # fmt: skip
