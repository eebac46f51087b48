"""ACE-Step 1 and 1.5: music from tags and lyrics.

Both attend to one sequence that holds the whole condition: tags, lyrics, and the voice (1) or the timbre of a reference
(1.5). It is separate from the sound, so NASA applies to it: a negative's sequence is prepared from its own tags, lyrics
and reference.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.ace.model import ACEStepTransformer2DModel

from .base import Context, LayerKey, Select
from .classes import existing
from .forwards import Forward
from .steered_layer import Projections, SteeredLayer
from .transformer import SoundFamily


@dataclass(frozen=True, kw_only=True)
class RotatedContext(Context):
    """With the rotations of its keys, two of (T, D)."""

    rotations: tuple[torch.Tensor, torch.Tensor]

    def followed_by(self, other: RotatedContext) -> RotatedContext:
        rotations = tuple(torch.cat(pair) for pair in zip(self.rotations, other.rotations, strict=True))
        return dataclasses.replace(super().followed_by(other), rotations=rotations)


class ACEStepFamily(SoundFamily):
    name = "ACE-Step 1"
    networks = (ACEStepTransformer2DModel,)
    blocks_name = "transformer_blocks"
    projections = Projections(query="to_q", keys_values=("to_k", "to_v"), output="to_out.0")
    context_argument = "encoder_hidden_states"
    required = ("conditioning_lyrics", "lyrics")
    text_settings = ("conditioning_lyrics", "lyrics_strength")

    def text_width(self, network: ACEStepTransformer2DModel) -> int:
        return network.genre_embedder.in_features

    def read_context(self, arguments: dict[str, Any], rows: int) -> Context:
        rotations = arguments["rotary_freqs_cis_cross"]
        return RotatedContext(tokens=arguments[self.context_argument], rotations=rotations)

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        negative = {"encoder_hidden_states": context.tokens, "rotary_freqs_cis_cross": context.rotations}
        return forward(x, **{**kwargs, **negative})

    def prompt(self, attention: Any, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context:
        return RotatedContext(
            tokens=select(kwargs["encoder_hidden_states"]), rotations=kwargs["rotary_freqs_cis_cross"]
        )

    def steered_layer(self, key: LayerKey) -> SteeredLayer:
        return _NamedInputLayer(self, key)


class ACEStep15Family(SoundFamily):
    name = "ACE-Step 1.5"
    networks = existing("comfy.ldm.ace.ace_step15", "AceStepConditionGenerationModel")
    blocks_name = "decoder.layers"
    projections = Projections(query="q_proj", keys_values=("k_proj", "v_proj"), output="o_proj")
    context_argument = text_keyword = "encoder_hidden_states"
    required = ("conditioning_lyrics", "lyrics")
    text_settings = ("conditioning_lyrics", "reference_audio_timbre_latents")

    def text_width(self, network: Any) -> int:
        return network.encoder.text_projector.in_features


class _NamedInputLayer(SteeredLayer):
    """The block names all arguments of its attention."""

    def called(self, attention: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        named = dict(kwargs)
        super().called(attention, (named.pop("hidden_states"), *args), named)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        return super().forward(hidden_states, **kwargs)
