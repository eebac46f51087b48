"""Diffusion transformers with a separate cross-attention to the text in each block.

Dimensions: B rows of a call, R positive rows, N image tokens, T text tokens, C = heads x head width.

None of these networks allows a patch between the softmax and the output projection, and some pass no options to their
attention. So during one call, each cross-attention's own forward runs twice, with some of its projections replaced:

    Z+ = forward(x, c+)      the output projection returns Z+ unchanged; the query projection's Q is stored
    Z- = forward(x, c-)      the same; Q is the stored one, K- and V- may have been computed before
    out(Z+ - alpha Z-)       the output projection, once

Norms, rotary embeddings, masks and gates are the host's own, and NASA adds one attention. No forward of the host is
copied, and none stays replaced after the call.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ..conditioning.negative import Negative, check_width
from .base import Attachment, Call, Context, Family, Grid, KeysValues, Options, Term, network_of
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

    def keys_values(self, context: Context) -> KeysValues:
        return tuple(getattr(self.attention, name)(context.tokens) for name in self.projections.keys_values)


class TransformerFamily(Family):
    """Base of all families in this style: subclasses define where the cross-attentions are and how they are called."""

    network: type[torch.nn.Module]
    """Exactly this class: a subclass may have other attentions."""
    blocks_name = "blocks"
    """Attribute of the network: its blocks, in the order in which they run."""
    attention_name = "cross_attn"
    """Attribute of a block: its attention to the text."""
    projections: Projections
    context_argument: str
    """Name of a block's argument for the prepared text."""
    mask_argument: str | None = None
    """Name of a block's argument for the mask over the text."""
    required: tuple[str, str] | None = None
    """A setting of prompts that only these models' text encoders add: its key, and its name in messages."""

    def matches(self, model: BaseModel) -> bool:
        return type(network_of(model)) is self.network

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

    def layers(self, model: BaseModel) -> dict[int, TransformerLayer]:
        return {
            index: TransformerLayer(Block("block", index), getattr(block, self.attention_name), self.projections)
            for index, block in enumerate(getattr(network_of(model), self.blocks_name))
        }

    def check(self, model: BaseModel, negative: Negative) -> None:
        check_width(negative, self.text_width(network_of(model)))
        if self.required is not None and negative.settings.get(self.required[0]) is None:
            raise ValueError(
                f"negative has no {self.required[1]}: it was made by another model's text encoder. Encode it with this "
                f"{self.name} model's own CLIP"
            )

    def context(self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor) -> Context:
        block = getattr(network_of(model), self.blocks_name)[0]
        return self.read_context(first_block_arguments(model, block, negative, x, sigma), negative.embedding.shape[0])

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


class TransformerAttachment:
    def __init__(self, family: TransformerFamily) -> None:
        self.family = family
        # By network: a node's output may run in several models at once, for example on several GPUs.
        self._layers: WeakKeyDictionary[torch.nn.Module, dict[int, _SteeredLayer]] = WeakKeyDictionary()

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        network = network_of(model)
        known = self._layers.setdefault(network, {})
        layers = self.family.layers(model)
        grid = self.family.grid(network, call.shape)
        with contextlib.ExitStack() as stack:
            for key in sorted(call.layers):
                # These objects are reused, so that a compiled model sees the same ones in each call.
                steered = known.setdefault(key, _SteeredLayer(self.family, key))
                stack.enter_context(steered.attached_to(layers[key].attention, call, grid))
            return proceed(options)


class _SteeredLayer:
    """Steers one cross-attention: its methods temporarily replace the forwards of the attention and its projections."""

    def __init__(self, family: TransformerFamily, key: int) -> None:
        self.family, self.key = family, key

    @contextlib.contextmanager
    def attached_to(self, attention: torch.nn.Module, call: Call, grid: Grid) -> Iterator[None]:
        """Replace the forwards of `attention` and its projections."""
        names = self.family.projections
        self._attention, self._call, self._grid = attention, call, grid
        self._forward = attention.forward
        self._query_forward = getattr(attention, names.query).forward
        self._output_forward = getattr(attention, names.output).forward
        self._key_value_forwards = [getattr(attention, name).forward for name in names.keys_values]
        self._q: torch.Tensor | None = None
        self._term: Term | None = None
        replaced = [(attention, self.forward), (getattr(attention, names.query), self.query)]
        replaced.append((getattr(attention, names.output), _pass_through))
        stand_ins = (self.key_or_value_0, self.key_or_value_1)
        replaced += zip((getattr(attention, name) for name in names.keys_values), stand_ins, strict=False)
        try:
            with replaced_forwards(replaced):
                yield
        finally:
            self._attention = self._call = self._forward = self._query_forward = self._output_forward = None
            self._key_value_forwards = self._q = self._term = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's output for image tokens x (B, N, C)."""
        call, family = self._call, self.family
        out = self._forward(x, *args, **kwargs)
        # Some return a tuple of one.
        z = out if isinstance(out, torch.Tensor) else out[0]
        if self._q is None:
            raise ValueError(
                f"NASA cannot steer block {self.key}: another node has replaced its cross-attention with one that does "
                "not use the layer's own projections. Remove that node, or exclude the block in NASA Apply's blocks"
            )
        x_pos = call.select(x)
        self._q = call.select(self._q)

        def respond(term: Term) -> torch.Tensor:
            self._term = term
            rows = x_pos.shape[0]
            mask = term.context.mask
            context = Context(
                tokens=call.repeat(term.context.tokens, rows), mask=None if mask is None else call.repeat(mask, rows)
            )
            z_neg = family.respond(self._attention, self._forward, x_pos, context, *args, **kwargs)
            return z_neg if isinstance(z_neg, torch.Tensor) else z_neg[0]

        z = self._output_forward(call.steer(z, self.key, respond, lambda: self._grid))
        self._q = self._term = None
        return z if isinstance(out, torch.Tensor) else (z, *out[1:])

    def query(self, x: torch.Tensor) -> torch.Tensor:
        if self._q is None:
            self._q = self._query_forward(x)
        return self._q

    def key_or_value_0(self, context: torch.Tensor) -> torch.Tensor:
        return self._key_or_value(0, context)

    def key_or_value_1(self, context: torch.Tensor) -> torch.Tensor:
        return self._key_or_value(1, context)

    def _key_or_value(self, number: int, context: torch.Tensor) -> torch.Tensor:
        if self._term is None:
            return self._key_value_forwards[number](context)
        kept = self._term.keys_values[self.key]
        each = kept[number] if kept else self._key_value_forwards[number](self._term.context.tokens)
        return self._call.repeat(each, self._q.shape[0])


def _pass_through(z: torch.Tensor) -> torch.Tensor:
    return z
