"""One call of the model: the negatives that act in it, and which of its rows they act on.

Dimensions: B rows of a call (conditionings x rows of each), R rows of its positive ones, N image tokens, T text tokens,
C = heads x head width.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import comfy.utils
import torch

from ...guidance.methods import Method
from ..conditioning.mask import mask_for_tokens

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
            if self.mask.shape[0] not in (1, change.shape[0]):
                raise ValueError(unknown_rows(change.shape[0], self.mask.shape[0]))
            is_even = self.mask.shape[1:].numel() == 1
            weights = (
                self.mask.flatten(1).unsqueeze(-1) if is_even else mask_for_tokens(self.mask, grid(), change.shape[1])
            )
            change = change * weights.to(change.dtype)
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

    positive: which of equal parts of its rows are steered; the host's parts are its conditionings.
    shape: of the latent of this call, (B, C, h, w) or (B, C, F, h, w).
    images: for negatives with a row for each image: the image of each positive row, (R,); None if the images of each
        part are in order.
    prompt: length of the prompts as they come to the network, for joint attention.
    said: what has been logged in this sampling run and is not to be logged again.
    """

    positive: tuple[bool, ...]
    terms: tuple[Term, ...]
    shape: torch.Size
    images: torch.Tensor | None = None
    prompt: int = 0
    observer: LayerObserver | None = None
    said: set[str] = field(default_factory=set)

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
        return hashlib.sha256(repr((self.positive, self.images is None, terms)).encode()).hexdigest()[:16]

    def select(self, rows: torch.Tensor) -> torch.Tensor:
        """The positive rows, (R, ...), of all rows, (B, ...); a view if possible.

        Raises:
            ValueError: not all rows are positive, and there are others than those of the call.
        """
        if all(self.positive):
            return rows
        if rows.shape[0] != self.shape[0]:
            raise ValueError(unknown_rows(rows.shape[0], self.shape[0]))
        parts = zip(rows.chunk(len(self.positive)), self.positive, strict=True)
        return _concat([part for part, chosen in parts if chosen])

    def image_numbers(self, device: torch.device) -> torch.Tensor:
        """The image of each positive row, (R,)."""
        if self.images is not None:
            return self.images
        return torch.arange(self.shape[0] // len(self.positive), device=device).repeat(sum(self.positive))

    def repeat(self, each: torch.Tensor, rows: int) -> torch.Tensor:
        """Repeat a negative's tensor, (Bn, ...), to the `rows` positive rows, each with its own image's.

        Raises:
            ValueError: each image has its own negative, and there are other rows than those of the call.
        """
        if each.shape[0] == 1:
            return comfy.utils.repeat_to_batch_size(each, rows)
        numbers = self.image_numbers(each.device)
        if rows != numbers.shape[0]:
            raise ValueError(unknown_rows(rows, numbers.shape[0]))
        return each.index_select(0, numbers % each.shape[0])

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
            share: computes the share of a negative's tokens in an attention to both prompts, (R, N, C); called after
                `respond`.
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
                z_pos = _sum(z_pos, term.weighted(change, grid))
        if self.observer is not None:
            self.observer.on_steered(key, before, z_pos)
        if all(self.positive):
            return z_pos
        steered = iter(z_pos.chunk(sum(self.positive)))
        parts = zip(z.chunk(len(self.positive)), self.positive, strict=True)
        return _concat([next(steered) if chosen else part for part, chosen in parts])


def unknown_rows(got: int, expected: int) -> str:
    return (
        f"NASA cannot tell which rows of an attention belong to the prompt: there are {got}, expected {expected}. "
        "Another node adds or repeats rows inside the network (regional prompts, for example). Set cfg to 1 and use "
        "neither a mask nor a batch of negatives in NASA Apply, or remove that node or NASA Apply"
    )


def _sum(z: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """z + change, where `change` is nobody else's: in place, since memory for another response costs as much time."""
    return change.add_(z) if change.dtype == z.dtype else z + change


def _concat(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
