"""Base of the families of joint attention: where the blocks are, and how a negative comes to the first of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from comfy.model_base import BaseModel

from ....guidance.blocks import Block
from ...conditioning.negative import Negative
from ..base import Attachment, Grid, Options, TokenFamily, network_of
from ..forwards import first_block_arguments
from .attachment import JointAttachment
from .block import Arguments, JointBlock, JointLayer, narrow
from .stream import JointContext

_NOT_TEXT = ("reference_latents", "reference_latents_text_embeds", "ref_latent", "guiding_frame_index",
             "clip_vision_output", "clip_vision_outputs", "unclip_conditioning")  # fmt: skip
"""Settings of a prompt that add pictures to it: a negative is only its text."""


class JointFamily(TokenFamily):
    """Subclasses declare their networks."""

    groups: tuple[tuple[str, str, type[torch.nn.Module], JointBlock], ...]
    """In the order in which they run: attribute of the network, name in NASA Apply's `blocks`, class, declaration."""
    alpha_note = (
        "no alpha has been measured on a published model of joint attention: begin at 0.5 (the best on two small "
        "students), and compare strengths with NASA Scale Sweep"
    )
    target_first = True
    """Whether the picture's own tokens come before those of reference pictures and padding."""
    has_references = False
    """Whether tokens of reference pictures may stand beside the picture's own."""

    def matches(self, model: BaseModel) -> bool:
        network = network_of(model)
        if type(network) not in self.networks:
            return False
        layers = self.layers(model)
        classes = {group: cls for _, group, cls, _ in self.groups}
        # A block of another class is one that nobody has looked at.
        return bool(layers) and all(type(each.module) is classes[each.block.group] for each in layers.values())

    def layers(self, model: BaseModel) -> dict[int, JointLayer]:
        network = network_of(model)
        blocks = [
            # A node may have compiled single blocks.
            JointLayer(Block(group, index), getattr(module, "_orig_mod", module), declared)
            for attribute, group, _, declared in self.groups
            for index, module in enumerate(getattr(network, attribute))
        ]
        return dict(enumerate(blocks))

    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> JointContext:
        settings = {key: value for key, value in negative.settings.items() if key not in _NOT_TEXT}
        plain = dataclasses.replace(negative, settings=settings)
        network, first = network_of(model), self.layers(model)[0]
        if not self.text_depends_on_size:
            x = self.small(network, x)
        arguments = first_block_arguments(model, network, first.module, plain, x, sigma, options)
        arguments = _by_name(first, arguments)
        tokens = arguments[first.declared.text]
        if not first.declared.has_rows:
            tokens = tokens.unsqueeze(0)
        if first.declared.image is None:
            prompt = negative.embedding.shape[1]
            tokens = tokens[:, : first.declared.text_length(network, arguments, prompt)]
        return self.read_context(first.declared, arguments, tokens)

    def small(self, network: Any, x: torch.Tensor) -> torch.Tensor:
        """A part of the latent: some networks refine the picture before the first block."""
        _, height, width = self.patch_size(network)
        return x[..., : 2 * height, : 2 * width]

    def read_context(self, declared: JointBlock, arguments: Arguments, tokens: torch.Tensor) -> JointContext:
        """The negative `tokens`, (Bn, N, C), with positions and mask from the arguments of the first block."""
        length = tokens.shape[1]
        positions = None
        if declared.positions is not None:
            name, dim = declared.positions
            positions = _text_and_one(arguments.get(name), dim, length, declared.image_first)
        elif declared.text_positions is not None:
            positions = arguments.get(declared.text_positions)
        mask = arguments.get(declared.mask) if declared.mask is not None else None
        if mask is not None and mask.shape[-1] != length:
            mask = _text_and_one(mask, mask.ndim - 1, length, declared.image_first)
            if mask.shape[-2] > 1:
                mask = _text_and_one(mask, mask.ndim - 2, length, declared.image_first)
        own = {name: arguments[name] for name in declared.own}
        return JointContext(tokens=tokens, mask=mask, positions=positions, own=own)

    def image_tokens(self, network: Any, grid: Grid) -> int | None:
        """I for a picture of this grid; None where references add to it."""
        return None if self.has_references else prod(grid)

    def attach(self) -> Attachment:
        return JointAttachment(self)


def _by_name(layer: JointLayer, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A block's arguments by name, also where its signature collects them as *args and **kwargs."""
    named = dict(arguments)
    for name, parameter in inspect.signature(type(layer.module).forward).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            named.update(zip(layer.declared.positional, named.pop(name, ()), strict=False))
        elif parameter.kind is parameter.VAR_KEYWORD:
            named.update(named.pop(name, {}))
    return named


def _text_and_one(value: Any, dim: int, length: int, image_first: bool) -> Any:
    """The part of the text and of one image token, in the block's order."""
    if isinstance(value, tuple | list):
        return type(value)(_text_and_one(each, dim, length, image_first) for each in value)
    if value is None or not image_first:
        return narrow(value, dim, 0, length + 1)
    return torch.cat([value.narrow(dim, 0, 1), value.narrow(dim, value.shape[dim] - length, length)], dim)
