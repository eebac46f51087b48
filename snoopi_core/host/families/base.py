"""The interface between NASA and a family of networks. Each family is one file here and one test.

Dimensions: B rows of a call (conditionings x rows of each), R rows of its positive ones, N image tokens, T text tokens,
C = heads x head width.
"""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.utils
import torch
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ...guidance.methods import METHOD_NAMES, Method
from ..conditioning.mask import mask_for_tokens
from ..conditioning.negative import Negative

Options = dict[str, Any]
"""The host's transformer_options."""
LayerKey = Hashable
"""Identifies one cross-attention of a network; the type depends on the family."""
Grid = tuple[int, int, int]
"""Frames, height and width in image tokens."""
Select = Callable[[torch.Tensor], torch.Tensor]
"""Returns the positive rows, (R, ...), of all rows, (B, ...)."""
KeysValues = tuple[torch.Tensor, ...]
"""Outputs of the layer's own key and value projections for a negative, (Bn, T, ...) each."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A prompt as input of the cross-attention: tokens (Bn, T, C), and the mask over them that the host would use."""

    tokens: torch.Tensor
    mask: torch.Tensor | None = None

    def followed_by(self, other: Context) -> Context:
        """The tokens of both, (Bn, T + T', C). Masks, (Bn, ..., T), are added to scores, or are True where seen."""
        mask = None
        if self.mask is not None or other.mask is not None:
            mask = torch.cat([each.mask_like(self.mask, other.mask) for each in (self, other)], dim=-1)
        return dataclasses.replace(other, tokens=torch.cat([self.tokens, other.tokens], dim=1), mask=mask)

    def mask_like(self, *masks: torch.Tensor | None) -> torch.Tensor:
        """Its mask; if it has none, one of the kind of the first given one that hides nothing."""
        if self.mask is not None:
            return self.mask
        other = next(mask for mask in masks if mask is not None)
        shape = (*other.shape[:-1], self.tokens.shape[1])
        return other.new_ones(shape) if other.dtype == torch.bool else other.new_zeros(shape)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One negative's contribution to a call of the model.

    number: index of the negative among all negatives of the model, including those that do not act in this call.
    method: how it changes the response to the prompt.
    strength: alpha, a 0-dim tensor, so that a compiled model is not recompiled when it changes.
    portion: its share among several prompts of a node, which are averaged.
    context: the negative.
    keys_values: the layers where it acts, with their K- and V- if these are cached for later steps. With a single step
        a cache would only use memory, so the value is None and each layer computes them when it runs.
    mask: where in the picture it acts, (R, F, h, w); None for everywhere.
    """

    number: int
    method: Method
    strength: torch.Tensor
    portion: float = 1.0
    context: Context
    keys_values: Mapping[LayerKey, KeysValues | None]
    mask: torch.Tensor | None = None

    def weighted(self, change: torch.Tensor, grid: Callable[[], Grid]) -> torch.Tensor:
        """The method's change of Z+, (R, N, C), times the portion and the mask at each token."""
        if self.portion != 1.0:
            change = change * self.portion
        if self.mask is not None:
            change = change * mask_for_tokens(self.mask, grid(), change.shape[1]).to(change.dtype)
        return change


class LayerObserver(Protocol):
    """Observes the layers while they are steered; must not change anything."""

    def on_response(self, key: LayerKey, number: int, z_pos: torch.Tensor, z_neg: torch.Tensor) -> None:
        """Z+ and the Z- of negative `number`, (R, N, C). May be called by threads of several GPUs at the same time."""
        ...

    def on_steered(self, key: LayerKey, z_pos: torch.Tensor, z_nasa: torch.Tensor) -> None:
        """Z+ and Z_NASA, (R, N, C)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """The steering of one call of the model.

    positive: which of its conditionings are steered.
    prompt: length of the prompts as they come to the network, for joint attention.
    """

    positive: tuple[bool, ...]
    terms: tuple[Term, ...]
    shape: torch.Size
    prompt: int = 0
    observer: LayerObserver | None = None

    @property
    def layers(self) -> frozenset[LayerKey]:
        return frozenset(key for term in self.terms for key in term.keys_values)

    def graph_key(self) -> str:
        """A hash of everything in this call that a compiled graph depends on; not alpha or the negatives' values."""
        terms = [
            (
                sorted((str(key), kept is None) for key, kept in term.keys_values.items()),
                *(None if each is None else (each.shape, each.dtype) for each in (term.context.tokens, term.mask)),
                *(str(term.method), term.portion),
            )
            for term in self.terms
        ]
        return hashlib.sha256(repr((self.positive, terms)).encode()).hexdigest()[:16]

    def select(self, rows: torch.Tensor) -> torch.Tensor:
        """The positive rows, (R, ...), of all rows, (B, ...); a view if possible."""
        if all(self.positive):
            return rows
        chunks = len(self.positive)
        assert rows.shape[0] % chunks == 0, f"{rows.shape[0]} rows of attention cannot be {chunks} conditionings"
        return _concat([part for part, chosen in zip(rows.chunk(chunks), self.positive, strict=True) if chosen])

    def repeat(self, each: torch.Tensor, rows: int) -> torch.Tensor:
        """Repeat a negative's tensor, (Bn, ...), to the `rows` positive rows, starting again for each conditioning."""
        conditionings = sum(self.positive)
        each = comfy.utils.repeat_to_batch_size(each, rows // conditionings)
        return each if conditionings == 1 else each.repeat(conditionings, *(1,) * (each.ndim - 1))

    def steer(
        self,
        z: torch.Tensor,
        key: LayerKey,
        respond: Callable[[Term], torch.Tensor],
        grid: Callable[[], Grid],
        *,
        text: Callable[[], torch.Tensor] | None = None,
        share: Callable[[Term], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Z of all rows, (B, N, C), with the negatives acting on the positive rows.

        The changes by several negatives are added; each is computed from the response to the prompt alone.

        Args:
            respond: computes Z- of a negative for the positive rows, (R, N, C).
            grid: returns the grid of the N tokens; called only if there is a mask.
            text: computes the response to the prompt's text, (R, N, C), if `z` contains something else too, such as
                the response to an image.
            share: computes the share of a negative's tokens in an attention to both prompts, (R, N, C).
        """
        z_pos = before = self.select(z)
        prompt = None
        for term in self.terms:
            if key in term.keys_values:
                z_neg = respond(term)
                if self.observer is not None:
                    self.observer.on_response(key, term.number, before, z_neg)
                if term.method.uses_prompt and prompt is None:
                    prompt = before if text is None else text()
                of_both = share(term) if term.method.uses_share else None
                change = term.method.change(prompt, z_neg, of_both, term.strength)
                z_pos = z_pos + term.weighted(change, grid)
        if self.observer is not None:
            self.observer.on_steered(key, before, z_pos)
        if all(self.positive):
            return z_pos
        steered = iter(z_pos.chunk(sum(self.positive)))
        parts = zip(z.chunk(len(self.positive)), self.positive, strict=True)
        return _concat([next(steered) if chosen else part for part, chosen in parts])


class Layer(Protocol):
    """One cross-attention of a network."""

    @property
    def block(self) -> Block:
        """Its block, as named in NASA Apply's `blocks`."""
        ...

    def keys_values(self, context: Context) -> KeysValues | None:
        """K- and V- from the layer's own projections, with the current weights; None if they depend on the call."""
        ...


class Attachment(Protocol):
    """Runs calls of a node's networks with steering. It may keep objects between calls, but no computed tensors."""

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """Run a call of the model with the steering of `call`.

        Args:
            model: the host's model, with its weights as during sampling.
            options: the call's transformer_options; copy, do not modify.
            proceed: runs the host's own call with the given options and extra arguments for the network.
        """
        ...


class Family(ABC):
    """Networks whose cross-attention is accessed in the same way."""

    name: str
    """Shown in messages, for example in the list of supported models."""
    methods: tuple[str, ...] = METHOD_NAMES
    """Names of the methods that can act in these networks."""
    text_depends_on_time = False
    """Whether the context depends on the noise level, so that it is prepared for each step."""
    text_depends_on_size = False
    """Whether the context depends on the size of the picture, which may differ between calls of a run."""
    sound: frozenset[str] = frozenset()
    """Groups of blocks that work on sound, where a mask over the picture means nothing."""

    @abstractmethod
    def matches(self, model: BaseModel) -> bool:
        """Whether `model` belongs to this family."""

    @abstractmethod
    def layers(self, model: BaseModel) -> Mapping[LayerKey, Layer]:
        """All cross-attentions to text, in the order in which they run; not empty if the model matches."""

    @abstractmethod
    def check(self, model: BaseModel, negative: Negative) -> None:
        """Check that a negative belongs to this model.

        Raises:
            ValueError: it was made by another model's text encoder.
        """

    @abstractmethod
    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> Context:
        """The negative, prepared as the host prepares this model's prompts, on the model's device and in its dtype.

        Args:
            x, sigma, options: of the call for which it is prepared.
        """

    @abstractmethod
    def attach(self) -> Attachment:
        """A new attachment, which runs calls of models of this family."""

    def check_mask(self, blocks: Collection[Block]) -> None:
        """Check that a mask over the picture has a meaning in all these blocks.

        Raises:
            ValueError: some work on sound.
        """
        groups = {block.group for block in blocks}
        if groups & self.sound:
            picture = ", ".join(sorted(groups - self.sound))
            mend = f"Set blocks to {picture}, or disconnect the mask" if picture else "Disconnect the mask"
            raise ValueError(
                f"mask: it names a part of the picture, but the blocks {', '.join(sorted(groups & self.sound))} of "
                f"{self.name} work on sound. {mend}"
            )

    def ignores_zeros(self, model: BaseModel, blocks: frozenset[Block]) -> bool:
        """Whether a text of zeros has no response in these blocks, as far as that is known before sampling."""
        return False

    def kind(self, model: BaseModel) -> str | None:
        """The kind of model, a key of guidance.alpha.PRESETS_BY_KIND or "SDXL"; None if the paper does not cover it."""
        return None

    def blocks(self, model: BaseModel) -> tuple[Block, ...]:
        """Blocks with cross-attention, in the order in which they run."""
        return tuple(dict.fromkeys(layer.block for layer in self.layers(model).values()))


def has_values(keys_values: KeysValues | None) -> bool:
    """Whether V- has any value but zero, or is not known; if it has none, Z- is zero. Waits for the GPU."""
    if keys_values is None:
        return True
    *keys, values = keys_values
    # Of a joint projection, the second half.
    return bool((values if keys else values.chunk(2, dim=-1)[1]).any())


def network_of(model: BaseModel) -> torch.nn.Module:
    """The network itself, without torch.compile's wrapper."""
    network = model.diffusion_model
    return getattr(network, "_orig_mod", network)


def _concat(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
