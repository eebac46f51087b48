"""LTX-Video: the video networks, and LTX-2 and later, which make video and sound together.

Later versions shift and scale the text in each block, by the noise level, before the projections of keys and values:

    c' = c (1 + scale) + shift,   (shift, scale) = table of the block + embedding of the noise level

The embedding is the block's own argument in the call, so that the negative gets exactly the positive's, also where a
part of the latent is known already and has a noise level of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import comfy.utils
import torch
from comfy.ldm.lightricks.model import LTXVModel
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ..conditioning.negative import Negative, check_width
from .base import Call, Context, Grid, KeysValues, LayerKey, Options, Select, Term, network_of
from .classes import existing
from .forwards import Forward, replaced_forwards
from .steered_layer import Projections, SteeredLayer, TransformerLayer
from .transformer import TransformerFamily


@dataclass(frozen=True, kw_only=True)
class VideoAudioContext(Context):
    """A negative for both streams: `tokens` for the video's, `audio` (Bn, T, Ca) for the sound's."""

    audio: torch.Tensor


@dataclass(frozen=True)
class LTXLayer(TransformerLayer):
    """An attention to the text in `owner`; `table` and `argument` are the names of the two parts of its modulation."""

    owner: torch.nn.Module
    table: str
    argument: str

    @property
    def is_modulated(self) -> bool:
        return getattr(self.owner, "cross_attention_adaln", False)

    def tokens(self, context: Context) -> torch.Tensor:
        return context.audio if self.block.group == "audio" else context.tokens

    def keys_values(self, context: Context) -> KeysValues | None:
        return None if self.is_modulated else super().keys_values(context)


class LTXVFamily(TransformerFamily):
    name = "LTX-Video"
    networks = (LTXVModel,)
    blocks_name = "transformer_blocks"
    projections = Projections(query="to_q", keys_values=("to_k", "to_v"), output="to_out")
    context_argument = "context"
    mask_argument = "attention_mask"
    required = ("attention_mask", "attention mask")
    text_settings = ("attention_mask",)
    attentions = (("block", "attn2", "prompt_scale_shift_table", "prompt_timestep"),)
    """Of each block: the group of its attention to the text, its name, and the names of its modulation's parts."""

    def text_width(self, network: LTXVModel) -> int:
        return network.caption_channels

    def patch_size(self, network: LTXVModel) -> tuple[int, int, int]:
        return 1, 1, 1

    def layers(self, model: BaseModel) -> dict[LayerKey, LTXLayer]:
        return {
            (group, index): LTXLayer(
                Block(group, index), getattr(block, name), self.projections, block, table, argument
            )
            for index, block in enumerate(network_of(model).transformer_blocks)
            for group, name, table, argument in self.attentions
        }

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        return forward(x, **{**kwargs, "context": context.tokens, "mask": context.mask})

    def prompt(self, attention: Any, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context:
        mask = kwargs.get("mask")
        return Context(tokens=select(kwargs["context"]), mask=None if mask is None else select(mask))

    def steered_layer(self, key: LayerKey) -> SteeredLayer:
        return _LTXSteeredLayer(self, key)


class LTXAVFamily(LTXVFamily):
    name = "LTX-2 (LTX-2, 2.3, 2.5)"
    networks = existing("comfy.ldm.lightricks.av_model", "LTXAVModel")
    required = None  # its text encoder leaves the padding out
    text_settings = ("attention_mask", "unprocessed_ltxav_embeds")
    attentions = (
        ("video", "attn2", "prompt_scale_shift_table", "v_prompt_timestep"),
        ("audio", "audio_attn2", "audio_prompt_scale_shift_table", "a_prompt_timestep"),
    )
    sound = frozenset({"audio"})

    def check(self, model: BaseModel, negative: Negative) -> None:
        network = network_of(model)
        # As the text encoder gives it, with one projection or one for each stream, or after the network's connectors.
        both = network.cross_attention_dim + network.audio_cross_attention_dim
        widths = (network.caption_channels, both, 2 * network.caption_channels)
        got = negative.embedding.shape[-1]
        check_width(negative, got if got in widths else network.caption_channels)

    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> Context:
        # The text does not depend on the latent, which the host packs into one tensor: a small one does.
        network = network_of(model)
        video = x.new_zeros(1, network.in_channels, 1, 1, 1)
        audio = x.new_zeros(1, network.num_audio_channels, 1, network.audio_frequency_bins)
        x, shapes = comfy.utils.pack_latents([video, audio])
        settings = {key: each for key, each in negative.settings.items() if key in self.text_settings}
        prepared = dataclasses.replace(negative, settings={**settings, "latent_shapes": shapes})
        return self.prepare(model, prepared, x, sigma, options)

    def read_context(self, arguments: dict[str, Any], rows: int) -> Context:
        mask = arguments.get("attention_mask")
        return VideoAudioContext(tokens=arguments["v_context"], audio=arguments["a_context"], mask=mask)


class _LTXSteeredLayer(SteeredLayer):
    """Shifts and scales the negative's text as the block does the positive's."""

    @contextlib.contextmanager
    def attached_to(self, layer: LTXLayer, call: Call, grid: Grid) -> Iterator[None]:
        replaced, self._level = [], None
        if layer.is_modulated:
            self._block_forward = layer.owner.forward
            replaced.append((layer.owner, self.block_forward))
        if (gate := getattr(layer.attention, "to_gate_logits", None)) is not None:
            self._gate_forward = gate.forward
            replaced.append((gate, self.gate))
        try:
            with replaced_forwards(replaced), super().attached_to(layer, call, grid):
                yield
        finally:
            self._block_forward = self._gate_forward = self._level = None

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """The layer multiplies its response by 2 sigmoid(logits): by 1 if the response is a share."""
        logits = self._gate_forward(x)
        return logits if self._attends_to != "both" else torch.zeros_like(logits)

    def block_forward(self, *args: Any, **kwargs: Any) -> Any:
        self._level = kwargs.get(self._layer.argument)
        return self._block_forward(*args, **kwargs)

    def context(self, term: Term, x_pos: torch.Tensor) -> Context:
        context, layer = super().context(term, x_pos), self._layer
        if not layer.is_modulated:
            return context
        if self._level is None:
            raise ValueError(
                f"NASA cannot steer {layer.block.group}.{layer.block.index}: another node calls the block without "
                f"{layer.argument}, the noise level of its text. Remove that node, or exclude the block in NASA "
                "Apply's blocks"
            )
        level = self._call.select(self._level)  # (R, 1, 2 C)
        table = getattr(layer.owner, layer.table).to(device=x_pos.device, dtype=x_pos.dtype)
        shift, scale = (table + level.unflatten(-1, (2, -1))).unbind(2)
        return dataclasses.replace(context, tokens=context.tokens * (1 + scale) + shift)

    def negative_key_or_value(self, number: int, context: torch.Tensor, term: Term) -> torch.Tensor:
        if self._layer.is_modulated:
            # Different in each row and step.
            return self._key_value_forwards[number](context)
        return super().negative_key_or_value(number, context, term)
