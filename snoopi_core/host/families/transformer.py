"""Diffusion transformers with a separate cross-attention to the text in each block.

Dimensions: B rows of a call, R positive rows, N image tokens, T text tokens, C = heads x head width.

None of these networks allows a patch between the softmax and the output projection, and some pass no options to their
attention. So during one call, some projections of each cross-attention are replaced, and its own forward runs twice:

    Z+ = forward(x, c+)      the query projection's Q is stored; Z+ comes to the output projection
    Z- = forward(x, c-)      Q is the stored one, K- and V- may have been computed before; out returns Z- unchanged
    out(Z+ - alpha Z-)       the output projection, once

Norms, rotary embeddings, masks and gates are the host's own, and NASA adds one attention. No forward of the host is
copied, and none stays replaced after the call.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ..conditioning.negative import Negative
from .base import Attachment, Call, Context, Grid, LayerKey, Options, Select, TokenFamily, network_of
from .forwards import Forward, first_block_arguments
from .steered_layer import Projections, SteeredLayer, TransformerLayer


class TransformerFamily(TokenFamily):
    """Base of all families in this style: subclasses define where the cross-attentions are and how they are called."""

    blocks_name = "blocks"
    """Attribute of the network, may be dotted: its blocks, in the order in which they run."""
    attention_name = "cross_attn"
    """Attribute of a block: its attention to the text."""
    projections: Projections
    context_argument: str
    """Name of a block's argument for the prepared text."""
    text_keyword: str | None = None
    """Name of the text's argument of the cross-attention; None if it is the first positional one."""
    mask_argument: str | None = None
    """Name of a block's argument for the mask over the text."""
    text_settings: Collection[str] | None = None
    """The settings of a prompt that its text depends on; None: any. Others, such as pictures, are not prepared."""

    def matches(self, model: BaseModel) -> bool:
        return type(network_of(model)) in self.networks

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run the cross-attention's own forward for the negative.

        Args:
            forward: the original forward of `attention`.
            x: image tokens of the positive rows, (R, N, C).
            context: the negative for these rows, (R, T, C).
            args, kwargs: the block's other arguments to the cross-attention, after the image tokens: the positive's
                text, then what does not depend on it.
        """
        if self.text_keyword is not None:
            return forward(x, **{**kwargs, self.text_keyword: context.tokens})
        _, *rest = args
        return forward(x, context.tokens, *rest, **kwargs)

    def prompt(self, attention: Any, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context:
        """The text of the positive rows, (R, T, C), among a block's arguments to the cross-attention.

        Args:
            select: returns the positive rows, (R, ...), of all rows, (B, ...).
            x: image tokens of all rows, (B, N, C).
            args, kwargs: the other arguments.
        """
        return Context(tokens=select(args[0] if self.text_keyword is None else kwargs[self.text_keyword]))

    def answers_only_text(self, attention: Any) -> bool:
        """Whether the cross-attention's response is to text alone, and not to an image too."""
        return True

    def layers(self, model: BaseModel) -> dict[LayerKey, TransformerLayer]:
        return {
            index: TransformerLayer(Block("block", index), getattr(block, self.attention_name), self.projections)
            for index, block in enumerate(attrgetter(self.blocks_name)(network_of(model)))
        }

    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> Context:
        if self.text_settings is not None:
            settings = {key: each for key, each in negative.settings.items() if key in self.text_settings}
            negative = dataclasses.replace(negative, settings=settings)
        return self.prepare(model, negative, x, sigma, options)

    def prepare(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> Context:
        """The context of a negative as the first block gets it."""
        network = network_of(model)
        block = attrgetter(self.blocks_name)(network)[0]
        arguments = first_block_arguments(model, network, block, negative, x, sigma, options)
        return self.read_context(arguments, negative.embedding.shape[0])

    def read_context(self, arguments: dict[str, Any], rows: int) -> Context:
        """The context among a block's arguments, for `rows` rows."""
        return Context(
            tokens=arguments[self.context_argument],
            mask=None if self.mask_argument is None else arguments.get(self.mask_argument),
        )

    def attach(self) -> Attachment:
        return TransformerAttachment(self)

    def steered_layer(self, key: LayerKey) -> SteeredLayer:
        """A new object that steers the layer of this key."""
        return SteeredLayer(self, key)


class SoundFamily(TransformerFamily):
    """Networks that make sound: their tokens are a line in time."""

    sound = frozenset({"block"})

    def grid(self, network: Any, shape: torch.Size) -> Grid:
        return 1, 1, shape[-1]


class TransformerAttachment:
    def __init__(self, family: TransformerFamily) -> None:
        self.family = family
        # By network: a node's output may run in several models at once, for example on several GPUs.
        self._layers: WeakKeyDictionary[torch.nn.Module, dict[LayerKey, SteeredLayer]] = WeakKeyDictionary()

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        network = network_of(model)
        known = self._layers.setdefault(network, {})
        layers = self.family.layers(model)
        grid = self.family.grid(network, call.shape)
        with contextlib.ExitStack() as stack:
            for key in (key for key in layers if key in call.layers):
                # These objects are reused, so that a compiled model sees the same ones in each call.
                if key not in known:
                    known[key] = self.family.steered_layer(key)
                stack.enter_context(known[key].attached_to(layers[key], call, grid))
            return proceed(options)
