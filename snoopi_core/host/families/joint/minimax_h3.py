"""MiniMax H3: one packed sequence of text, reference pictures and sounds, the target's sound and its video.

Its blocks have no dimension of rows, and the modulation of a token depends on its segment of the sequence: a time and
a kind of token. Target sound and target video are steered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import comfy.utils
import torch
from comfy.ldm.minimax.model import DiTBlock, MiniMaxH3Model
from comfy.model_base import BaseModel

from ....guidance.blocks import Block
from ...conditioning.negative import Negative
from ..base import Options, network_of
from .block import Arguments, JointBlock, prompt_length
from .family import JointFamily
from .stream import JointContext

Segments = Sequence[tuple[int, int, int]]
"""Start, end, and row of the modulation: three kinds of token for each time."""
_KINDS = 3
_TEXT_SETTINGS = ("minimax_token_tags",)


def _target(arguments: Arguments) -> slice:
    """The last two segments."""
    (start, _, _), (_, end, _) = arguments["mod_segments"][-2:]
    return slice(start, end)


def _at_the_positives_time(theirs: Segments, own: Segments) -> Segments:
    """The negative's kinds of tokens, with the row of the time that the positive's text has."""
    time = theirs[0][2] // _KINDS
    return [(start, end, time * _KINDS + row % _KINDS) for start, end, row in own]


class MiniMaxH3Family(JointFamily):
    name = "MiniMax H3"
    networks = (MiniMaxH3Model,)
    groups = (
        ("blocks", "block", DiTBlock, JointBlock(
            text="x", positions=("rope_freqs", 1), text_length=prompt_length, own=("mod_segments",),
            merge=_at_the_positives_time, has_rows=False, target=_target,
        )),
    )  # fmt: skip
    has_references = True

    def text_width(self, network: MiniMaxH3Model) -> int:
        return network.condition_proj.in_features

    def check_mask(self, blocks: Collection[Block]) -> None:
        raise ValueError(
            "mask: it names a part of the picture, but MiniMax H3 makes sound in the same blocks. Disconnect the mask"
        )

    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> JointContext:
        # The text does not depend on the latent, which the host packs into one tensor: a small one does.
        network = network_of(model)
        frames, height, width = network.patch_size
        video = x.new_zeros(1, network.latents_dim, frames, height, width)
        audio = x.new_zeros(1, network.audio_latents_dim, 2, 1)
        x, shapes = comfy.utils.pack_latents([video, audio])
        settings = {key: each for key, each in negative.settings.items() if key in _TEXT_SETTINGS}
        prepared = dataclasses.replace(negative, settings={**settings, "latent_shapes": shapes})
        return super().context(model, prepared, x, sigma, options)

    def small(self, network: Any, x: torch.Tensor) -> torch.Tensor:
        return x

    def read_context(self, declared: JointBlock, arguments: Arguments, tokens: torch.Tensor) -> JointContext:
        context = super().read_context(declared, arguments, tokens)
        text = [segment for segment in context.own["mod_segments"] if segment[1] <= tokens.shape[1]]
        return dataclasses.replace(context, own={"mod_segments": text})
