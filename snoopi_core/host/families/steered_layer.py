"""How one cross-attention of a transformer is steered during a call.

Dimensions: B rows of a call, R positive rows, N image tokens, T text tokens, C = heads x head width.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from ...guidance.blocks import Block
from ...guidance.vsf import share_values
from .base import Call, Context, Grid, KeysValues, LayerKey, Select, Term
from .forwards import Forward, bypassed, replaced_forwards


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


class Attending(Protocol):
    """How a family's cross-attentions are called; see TransformerFamily."""

    def respond(
        self, attention: Any, forward: Forward, x: torch.Tensor, context: Context, /, *args: Any, **kwargs: Any
    ) -> Any: ...

    def prompt(self, attention: Any, select: Select, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Context: ...

    def answers_only_text(self, attention: Any) -> bool: ...


class SteeredLayer:
    """Steers one cross-attention: its methods temporarily replace the forwards of the attention and its projections."""

    def __init__(self, family: Attending, key: LayerKey) -> None:
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
        # What the layer projected of the prompt, of all rows, and of the last negative, (R, T, C): by projection.
        self._of_prompt: dict[int, torch.Tensor | None] = {}
        self._of_negative: dict[int, torch.Tensor] = {}
        self._keeps_prompt = any(term.method.uses_prompt for term in call.terms if self.key in term.keys_values)
        self._term: Term | None = None
        self._attends_to: Literal["", "prompt", "negative", "both"] = ""
        replaced = [(attention, self.forward), (query, self.query), (output, self.output)]
        replaced += zip(keys_values, (self.key_or_value_0, self.key_or_value_1), strict=False)
        # Another node may replace the attention's forward again during the call, and then only this sees it.
        called = attention.register_forward_pre_hook(self.called, with_kwargs=True)
        try:
            with replaced_forwards(replaced):
                yield
                if self._arguments is not None:
                    raise bypassed(self._layer.block)
        finally:
            called.remove()
            self._layer = self._call = self._forward = self._query_forward = self._output_forward = None
            self._key_value_forwards = self._arguments = self._q = self._term = None
            self._of_prompt = self._of_negative = None

    def called(self, attention: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """The attention is called, with whichever forward."""
        if self._arguments is not None:
            raise bypassed(self._layer.block)
        self._arguments = args[0], args[1:], kwargs

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's output for image tokens x (B, N, C)."""
        self._arguments = x, args, kwargs
        out = self._forward(x, *args, **kwargs)
        if self._arguments is not None:
            raise bypassed(self._layer.block)
        return out

    def output(self, z: torch.Tensor) -> torch.Tensor:
        """The output projection: of the steered response for Z+ (B, N, C), or none for other responses."""
        if self._attends_to:
            return z
        if self._arguments is None or self._q is None:
            raise bypassed(self._layer.block)
        x, args, kwargs = self._arguments
        z = self.steered(z, x, *args, **kwargs)
        self._arguments = None
        return z

    def steered(self, z: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output for Z+ (B, N, C) and its other arguments."""
        x_pos = self._call.select(x)
        if self._q.shape[0] != x.shape[0]:
            block = self._layer.block
            raise ValueError(
                f"NASA cannot steer {block.group}.{block.index}: another node repeats the rows of its cross-attention "
                "(regional prompts, for example), which is supported for UNets only. Remove that node or NASA Apply"
            )
        self._q = self._call.select(self._q)

        def attend(to: Literal["prompt", "negative", "both"], context: Context, term: Term | None) -> torch.Tensor:
            self._attends_to, self._term = to, term
            z = self.family.respond(self._layer.attention, self._forward, x_pos, context, *args, **kwargs)
            self._attends_to, self._term = "", None
            # Some return a tuple of one.
            return z if isinstance(z, torch.Tensor) else z[0]

        def prompt() -> Context:
            return self.family.prompt(self._layer.attention, self._call.select, x, *args, **kwargs)

        def respond(term: Term) -> torch.Tensor:
            return attend("negative", self.context(term, x_pos), term)

        def share(term: Term) -> torch.Tensor:
            return attend("both", prompt().followed_by(self.context(term, x_pos)), term)

        def text() -> torch.Tensor:
            return attend("prompt", prompt(), None)

        is_text = self.family.answers_only_text(self._layer.attention)
        z = self._call.steer(z, self.key, respond, lambda: self._grid, text=None if is_text else text, share=share)
        self._q, self._of_prompt, self._of_negative = None, {}, {}  # not kept while the next layers run
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
        if self._attends_to == "both":
            return self._key_or_share(number, context)
        if self._attends_to == "negative":
            self._of_negative[number] = self.negative_key_or_value(number, context, self._term)
            return self._of_negative[number]
        if self._attends_to == "prompt":
            return self._prompt_key_or_value(number, context)
        out = self._key_value_forwards[number](context)
        if self._keeps_prompt:
            # Another node's forward may project more than the prompt: then the prompt is projected again.
            self._of_prompt[number] = None if number in self._of_prompt else out
        return out

    def negative_key_or_value(self, number: int, context: torch.Tensor, term: Term) -> torch.Tensor:
        """K- or V- for each positive row, (R, T, C); `context` is the negative's for each of them."""
        kept = term.keys_values[self.key]
        each = kept[number] if kept else self._key_value_forwards[number](self._layer.tokens(term.context))
        return self._call.repeat(each, self._q.shape[0])

    def _prompt_key_or_value(self, number: int, context: torch.Tensor) -> torch.Tensor:
        """K+ or V+ of the positive rows, (R, T, C), as the layer has projected them already; `context` is theirs."""
        out, rows = self._of_prompt.get(number), self._arguments[0].shape[0]
        if out is None or out[..., 0].numel() != rows * context.shape[1]:
            return self._key_value_forwards[number](context)
        return self._call.select(out.reshape(rows, -1, out.shape[-1]))  # some networks concatenate the rows' tokens

    def _key_or_share(self, number: int, context: torch.Tensor) -> torch.Tensor:
        """Keys of both prompts, and values with which the attention returns the negative's share."""
        of_negative, last = self._of_negative[number], len(self._key_value_forwards) - 1
        both = self._prompt_key_or_value(number, context[:, : -of_negative.shape[1]]), of_negative
        if number < last:
            return torch.cat(both, dim=1)
        if last:
            return share_values(*both)
        keys, values = zip(*(each.chunk(2, dim=-1) for each in both), strict=True)
        return torch.cat([torch.cat(keys, dim=1), share_values(*values)], dim=-1)
