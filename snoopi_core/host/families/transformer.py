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
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import ceil
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ...guidance.vsf import share_values
from ..conditioning.negative import Negative, check_width
from .base import Attachment, Call, Context, Family, Grid, KeysValues, LayerKey, Options, Select, Term, network_of
from .forwards import Forward, first_block_arguments, replaced_forwards


@dataclass(frozen=True, kw_only=True)
class Projections:
    """Attribute names of a cross-attention's projections."""

    query: str
    keys_values: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class TransformerLayer:
    """One cross-attention and its block."""

    block: Block
    attention: torch.nn.Module
    projections: Projections

    def tokens(self, context: Context) -> torch.Tensor:
        """What this layer takes of a negative, (Bn, T, C)."""
        return context.tokens

    def keys_values(self, context: Context) -> KeysValues | None:
        tokens = self.tokens(context)
        return tuple(self.attention.get_submodule(name)(tokens) for name in self.projections.keys_values)


class TransformerFamily(Family):
    """Base of all families in this style: subclasses define where the cross-attentions are and how they are called."""

    networks: tuple[type[torch.nn.Module], ...]
    """Exactly these classes: a subclass may have other attentions."""
    blocks_name = "blocks"
    """Attribute of the network, may be dotted: its blocks, in the order in which they run."""
    attention_name = "cross_attn"
    """Attribute of a block: its attention to the text."""
    projections: Projections
    context_argument: str
    """Name of a block's argument for the prepared text."""
    mask_argument: str | None = None
    """Name of a block's argument for the mask over the text."""
    required: tuple[str, str] | None = None
    """A setting of prompts that only these models' text encoders add: its key, and its name in messages."""
    text_settings: Collection[str] | None = None
    """The settings of a prompt that its text depends on; None: any. Others, such as pictures, are not prepared."""

    def matches(self, model: BaseModel) -> bool:
        return type(network_of(model)) in self.networks

    @abstractmethod
    def text_width(self, network: Any) -> int:
        """Width of the text encoder's output that the network takes."""

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        """Frames, height and width of the latent in one image token."""
        return 1, network.patch_size, network.patch_size

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
        _, *rest = args
        return forward(x, context.tokens, *rest, **kwargs)

    def prompt(self, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context:
        """The text of the positive rows, (R, T, C), among a block's arguments to the cross-attention.

        Args:
            select: returns the positive rows, (R, ...), of all rows, (B, ...).
            x: image tokens of all rows, (B, N, C).
            args, kwargs: the other arguments.
        """
        return Context(tokens=select(args[0]))

    def answers_only_text(self, attention: Any) -> bool:
        """Whether the cross-attention's response is to text alone, and not to an image too."""
        return True

    def layers(self, model: BaseModel) -> dict[LayerKey, TransformerLayer]:
        return {
            index: TransformerLayer(Block("block", index), getattr(block, self.attention_name), self.projections)
            for index, block in enumerate(attrgetter(self.blocks_name)(network_of(model)))
        }

    def check(self, model: BaseModel, negative: Negative) -> None:
        check_width(negative, self.text_width(network_of(model)))
        if self.required is not None and negative.settings.get(self.required[0]) is None:
            raise ValueError(
                f"negative has no {self.required[1]}: it was made by another model's text encoder. Encode it with this "
                f"{self.name} model's own CLIP"
            )

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

    def grid(self, network: Any, shape: torch.Size) -> Grid:
        """The grid of the image tokens of a latent (B, C, h, w) or (B, C, F, h, w)."""
        sizes = (1, *shape[2:]) if len(shape) == 4 else tuple(shape[2:])
        return tuple(ceil(size / patch) for size, patch in zip(sizes, self.patch_size(network), strict=True))

    def attach(self) -> Attachment:
        return TransformerAttachment(self)

    def steered_layer(self, key: LayerKey) -> SteeredLayer:
        """A new object that steers the layer of this key."""
        return SteeredLayer(self, key)


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


class SteeredLayer:
    """Steers one cross-attention: its methods temporarily replace the forwards of the attention and its projections."""

    def __init__(self, family: TransformerFamily, key: LayerKey) -> None:
        self.family, self.key = family, key

    @contextlib.contextmanager
    def attached_to(self, layer: TransformerLayer, call: Call, grid: Grid) -> Iterator[None]:
        """Replace the forwards of the layer's attention and its projections."""
        names, attention = layer.projections, layer.attention
        query, output = attention.get_submodule(names.query), attention.get_submodule(names.output)
        keys_values = [attention.get_submodule(name) for name in names.keys_values]
        self._layer, self._call, self._grid = layer, call, grid
        self._forward, self._query_forward, self._output_forward = attention.forward, query.forward, output.forward
        self._key_value_forwards = [each.forward for each in keys_values]
        self._arguments: tuple[torch.Tensor, tuple, dict[str, Any]] | None = None
        self._q: torch.Tensor | None = None
        self._term: Term | None = None
        self._prompt_tokens: int | None = None
        self._is_responding = False
        replaced = [(attention, self.forward), (query, self.query), (output, self.output)]
        replaced += zip(keys_values, (self.key_or_value_0, self.key_or_value_1), strict=False)
        # Another node may replace the attention's forward again during the call, and then only this sees it.
        called = attention.register_forward_pre_hook(self.called, with_kwargs=True)
        try:
            with replaced_forwards(replaced):
                yield
                if self._arguments is not None:
                    raise self._bypassed()
        finally:
            called.remove()
            self._layer = self._call = self._forward = self._query_forward = self._output_forward = None
            self._key_value_forwards = self._arguments = self._q = self._term = self._prompt_tokens = None

    def called(self, attention: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """The attention is called, with whichever forward."""
        if self._arguments is not None:
            raise self._bypassed()
        self._arguments = args[0], args[1:], kwargs

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's output for image tokens x (B, N, C)."""
        self._arguments = x, args, kwargs
        out = self._forward(x, *args, **kwargs)
        if self._arguments is not None:
            raise self._bypassed()
        return out

    def output(self, z: torch.Tensor) -> torch.Tensor:
        """The output projection: of the steered response for Z+ (B, N, C), or none for other responses."""
        if self._is_responding:
            return z
        if self._arguments is None or self._q is None:
            raise self._bypassed()
        x, args, kwargs = self._arguments
        z = self.steered(z, x, *args, **kwargs)
        self._arguments = None
        return z

    def _bypassed(self) -> ValueError:
        block = self._layer.block
        return ValueError(
            f"NASA cannot steer {block.group}.{block.index}: another node has replaced its cross-attention with one "
            "that does not use the layer's own projections. Remove that node, or exclude the block in NASA Apply's "
            "blocks"
        )

    def steered(self, z: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output for Z+ (B, N, C) and its other arguments."""
        x_pos = self._call.select(x)
        self._q = self._call.select(self._q)

        def attend(context: Context, *, term: Term | None = None, prompt_tokens: int | None = None) -> torch.Tensor:
            self._is_responding, self._term, self._prompt_tokens = True, term, prompt_tokens
            z = self.family.respond(self._layer.attention, self._forward, x_pos, context, *args, **kwargs)
            self._is_responding, self._term, self._prompt_tokens = False, None, None
            # Some return a tuple of one.
            return z if isinstance(z, torch.Tensor) else z[0]

        def respond(term: Term) -> torch.Tensor:
            return attend(self.context(term, x_pos), term=term)

        def prompt() -> Context:
            return self.family.prompt(self._call.select, x, *args, **kwargs)

        def share(term: Term) -> torch.Tensor:
            first = prompt()
            return attend(first.followed_by(self.context(term, x_pos)), prompt_tokens=first.tokens.shape[1])

        text = None if self.family.answers_only_text(self._layer.attention) else lambda: attend(prompt())
        z = self._call.steer(z, self.key, respond, lambda: self._grid, text=text, share=share)
        self._q = None
        return self._output_forward(z)

    def context(self, term: Term, x_pos: torch.Tensor) -> Context:
        """The negative's context for each positive row, (R, T, C), x_pos (R, N, C)."""
        repeat, mask, rows = self._call.repeat, term.context.mask, x_pos.shape[0]
        tokens = repeat(self._layer.tokens(term.context), rows)
        return dataclasses.replace(term.context, tokens=tokens, mask=None if mask is None else repeat(mask, rows))

    def query(self, x: torch.Tensor) -> torch.Tensor:
        if self._q is None:
            self._q = self._query_forward(x)
        return self._q

    def key_or_value_0(self, context: torch.Tensor) -> torch.Tensor:
        return self._key_or_value(0, context)

    def key_or_value_1(self, context: torch.Tensor) -> torch.Tensor:
        return self._key_or_value(1, context)

    def _key_or_value(self, number: int, context: torch.Tensor) -> torch.Tensor:
        if self._prompt_tokens is not None:
            return self._key_or_share(number, context)
        if self._term is None:
            return self._key_value_forwards[number](context)
        kept = self._term.keys_values[self.key]
        each = kept[number] if kept else self._key_value_forwards[number](self._layer.tokens(self._term.context))
        return self._call.repeat(each, self._q.shape[0])

    def _key_or_share(self, number: int, context: torch.Tensor) -> torch.Tensor:
        """Keys of both prompts, and values with which the attention returns the negative's share."""
        out, last = self._key_value_forwards[number](context), len(self._key_value_forwards) - 1
        if number < last:
            return out
        keys, values = ((), out) if last else ((out.chunk(2, dim=-1)[0],), out.chunk(2, dim=-1)[1])
        values = share_values(values[:, : self._prompt_tokens], values[:, self._prompt_tokens :])
        return torch.cat([*keys, values], dim=-1)
