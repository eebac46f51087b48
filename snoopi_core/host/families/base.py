"""What NASA has to know about a family of networks. A family is one file here and one test.

Dimensions: B rows of a call (conditionings x rows of each), R rows of its positive ones, N image tokens, T text tokens,
C = heads x head width.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.utils
import torch
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ...guidance.nasa import steer_away
from ..conditioning.mask import mask_of_tokens
from ..conditioning.negative import Negative

Options = dict[str, Any]
"""The host's transformer_options."""
Key = Hashable
"""A family's name for one cross-attention of a network."""
Grid = tuple[int, int, int]
"""Frames, height and width in image tokens."""
KeysValues = tuple[torch.Tensor, ...]
"""What the layer's own key and value projections return for a negative, (Bn, T, ...) each."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A negative as the cross-attention takes it: tokens (Bn, T, C), and the mask over them that the host would use."""

    tokens: torch.Tensor
    mask: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Term:
    """One negative's share in a call of the model.

    number: of the negative among all that the model carries, also those that do not act in this call.
    alpha: its strength, a 0-dim tensor, so that a compiled model does not compile again when it changes.
    context: the negative.
    keys_values: the layers where it acts, each with K- and V- where they are kept for later steps. In a single step
        that would only take memory, so each layer makes its own when it runs.
    mask: where in the picture it acts, (R, F, h, w); None for everywhere.
    """

    number: int
    alpha: torch.Tensor
    context: Context
    keys_values: Mapping[Key, KeysValues | None]
    mask: torch.Tensor | None = None

    def weight(self, z: torch.Tensor, grid: Callable[[], Grid]) -> torch.Tensor:
        """alpha, or alpha at each token, (R, N, 1), for z (R, N, C)."""
        if self.mask is None:
            return self.alpha
        return (self.alpha * mask_of_tokens(self.mask, grid(), z.shape[1])).to(z.dtype)


class Watch(Protocol):
    """Looks on while layers are steered, and changes nothing."""

    def responded(self, key: Key, number: int, z_pos: torch.Tensor, z_neg: torch.Tensor) -> None:
        """Z+ and Z- of the negative of this number, (R, N, C). Threads of several GPUs call it at once."""
        ...

    def steered(self, key: Key, z_pos: torch.Tensor, z_nasa: torch.Tensor) -> None:
        """Z+ and what became of it, (R, N, C)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """What has to happen in one call of the model: `positive` tells which of its conditionings are steered."""

    positive: tuple[bool, ...]
    terms: tuple[Term, ...]
    shape: torch.Size
    watch: Watch | None = None

    @property
    def layers(self) -> frozenset[Key]:
        return frozenset(key for term in self.terms for key in term.keys_values)

    def shape_of_graph(self) -> str:
        """Changes with everything about this call that a graph would be traced for; not with alpha or the negatives."""
        terms = [
            (
                sorted((str(key), kept is None) for key, kept in term.keys_values.items()),
                *(None if each is None else (each.shape, each.dtype) for each in (term.context.tokens, term.mask)),
            )
            for term in self.terms
        ]
        return hashlib.sha256(repr((self.positive, terms)).encode()).hexdigest()[:16]

    def select(self, rows: torch.Tensor) -> torch.Tensor:
        """The positive rows, (R, ...), of all, (B, ...); a view where it can be."""
        if all(self.positive):
            return rows
        chunks = len(self.positive)
        assert rows.shape[0] % chunks == 0, f"{rows.shape[0]} rows of attention cannot be {chunks} conditionings"
        return _join([part for part, chosen in zip(rows.chunk(chunks), self.positive, strict=True) if chosen])

    def repeat(self, each: torch.Tensor, rows: int) -> torch.Tensor:
        """What belongs to a negative, (Bn, ...), for the `rows` positive rows: each conditioning begins anew."""
        conditionings = sum(self.positive)
        each = comfy.utils.repeat_to_batch_size(each, rows // conditionings)
        return each if conditionings == 1 else each.repeat(conditionings, *(1,) * (each.ndim - 1))

    def steer(
        self, z: torch.Tensor, key: Key, respond: Callable[[Term], torch.Tensor], grid: Callable[[], Grid]
    ) -> torch.Tensor:
        """Z of all rows, (B, N, C), with the negatives' subtracted from the positive ones.

        Args:
            respond: gives Z- of a negative for the positive rows, (R, N, C).
            grid: tells how the N tokens lie in the picture; asked only for a mask.
        """
        z_pos = before = self.select(z)
        for term in self.terms:
            if key in term.keys_values:
                z_neg = respond(term)
                if self.watch is not None:
                    self.watch.responded(key, term.number, before, z_neg)
                z_pos = steer_away(z_pos, z_neg, term.weight(z_pos, grid))
        if self.watch is not None:
            self.watch.steered(key, before, z_pos)
        if all(self.positive):
            return z_pos
        steered = iter(z_pos.chunk(sum(self.positive)))
        parts = zip(z.chunk(len(self.positive)), self.positive, strict=True)
        return _join([next(steered) if chosen else part for part, chosen in parts])


class Layer(Protocol):
    """One cross-attention of a network."""

    @property
    def block(self) -> Block:
        """Where it is, for the person who chooses blocks."""
        ...

    def keys_values(self, context: Context) -> KeysValues:
        """K- and V- by the layer's own projections, with the weights as they are now."""
        ...


class Attachment(Protocol):
    """A node's hold on the networks it runs in. It may keep objects between calls, never anything computed."""

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """Carry out `call`.

        Args:
            model: the host's model, its weights as they are during sampling.
            options: the call's transformer_options; not to be changed, but copied.
            proceed: runs the host's own call with the options, and more arguments for the network, that it is given.
        """
        ...


class Family(ABC):
    """Networks whose cross-attention is reached in the same way."""

    name: str
    """Shown to people, in the list of what is supported."""

    @abstractmethod
    def matches(self, model: BaseModel) -> bool:
        """Whether `model` is of this family."""

    @abstractmethod
    def layers(self, model: BaseModel) -> Mapping[Key, Layer]:
        """Every cross-attention to text, in the order in which they run; never empty for a model that matches."""

    @abstractmethod
    def check(self, model: BaseModel, negative: Negative) -> None:
        """Tell of a negative that is not this model's.

        Raises:
            ValueError: it was made by another model's text encoder.
        """

    @abstractmethod
    def context(self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor) -> Context:
        """The negative, prepared as the host prepares a prompt of this model, on its device and in its dtype."""

    @abstractmethod
    def attach(self) -> Attachment:
        """Something that carries out calls of models of this family."""

    def dropped(self, model: BaseModel) -> tuple[Block, ...]:
        """Blocks in which another node has replaced the cross-attention, and NASA would act without it."""
        return ()

    def kind(self, model: BaseModel) -> str | None:
        """The kind of model, as snoopi_core/guidance/alpha.py names it; None for one that the paper does not have."""
        return None

    def blocks(self, model: BaseModel) -> tuple[Block, ...]:
        """Blocks with cross-attention, in the order in which they run."""
        return tuple(dict.fromkeys(layer.block for layer in self.layers(model).values()))


def network_of(model: BaseModel) -> torch.nn.Module:
    """The network itself, also where torch.compile has wrapped it."""
    network = model.diffusion_model
    return getattr(network, "_orig_mod", network)


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
