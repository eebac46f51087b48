"""One joint block while NASA steers it: the host's own run, and one run for each negative (see attachment.py).

Dimensions: B rows of a call, R rows of its positive ones, P, N and I tokens, C channels.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch

from ..base import Call, Options, Term
from ..forwards import replaced_forwards
from .attention import Attention, Mask, Tokens, join_masks
from .block import Arguments, JointLayer, named, narrow, select_rows
from .share import attend_jointly, respond_to_negative
from .stream import Pass, Stream

_SKIPPED = "skipped blocks"


class SteeredBlock:
    """Steers one joint block: its `forward` temporarily replaces the block's."""

    def __init__(self, key: int, state: Pass) -> None:
        self.key, self.state = key, state

    @contextlib.contextmanager
    def attached_to(self, layer: JointLayer) -> Iterator[None]:
        """Replace the forward of the block."""
        module, self.declared = layer.module, layer.declared
        self.names = self.declared.names(module)
        self.name = self.state.names[self.key]
        self._forward: Callable[..., Any] | None = module.forward
        self._is_called = False
        self._reset()
        # Another node may replace the block's forward again during the call, and then only this sees it.
        called = module.register_forward_pre_hook(self.called)
        try:
            with replaced_forwards([(module, self.forward)]):
                yield
                if self._is_called:
                    raise self._bypassed()
        finally:
            called.remove()
            self._forward = None
            self._reset()

    def called(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        """The block is called, with whichever forward."""
        if self._is_called:
            raise self._bypassed()
        self._is_called = True

    def _bypassed(self) -> ValueError:
        return ValueError(
            f"NASA cannot steer block {self.name}: another node has replaced it with one that does not run "
            "ComfyUI's own, or not through ComfyUI's attention function. Remove that node, or NASA Apply"
        )

    def _reset(self) -> None:
        self._arguments: Arguments = {}
        self._positional = self._attended = 0
        self._options: Options = {}
        self._override: Callable[..., torch.Tensor] | None = None
        self._stream: Stream | None = None
        self._image: Tokens | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The block's own result, with the image steered."""
        state, self._is_called = self.state, False
        if self.key <= state.reached:
            raise ValueError(
                f"NASA cannot steer block {self.name}: another node runs it twice in one step. Remove that node, or "
                "NASA Apply"
            )
        if self.key > state.reached + 1 and _SKIPPED not in state.call.said:
            state.call.said.add(_SKIPPED)
            _warn_of_skipped(state.names[state.reached + 1 : self.key])
        state.reached = self.key
        self._arguments, self._positional = named(self.names, args, kwargs), len(args)
        self._options = self._arguments.get("transformer_options") or {}
        if self.declared.check is not None:
            self.declared.check(self._arguments, 0)
        self._override = self._options.get("optimized_attention_override")
        self._attended = 0
        result = self._run(self._arguments, {**self._options, "optimized_attention_override": self.attend})
        if not self._attended:
            raise self._bypassed()
        self._reset()
        return result

    def _run(self, arguments: Arguments, options: Options) -> Any:
        """The host's forward, called as the network calls it."""
        arguments = {**arguments, "transformer_options": options}
        positional = self.names[: self._positional]
        args = [arguments.pop(name) for name in positional]
        return self._forward(*args, **arguments)

    def attend(self, function: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The override for the host's own run of the block."""
        attention = self._attention(function, args, kwargs)
        q, k, v = args[:3]
        self._attended += 1
        if self._attended > 1:  # some blocks have a second attention, of the image alone
            return attention.as_returned(attention(q, k, v, attention.mask))
        state, call, axis = self.state, self.state.call, attention.axis
        v = v.flatten(2) if v.ndim > q.ndim else v
        text, image, target = self._places(q.shape[axis], k.shape[axis])
        z, way, kept = attend_jointly(attention, q, k, v, text=text, ways=state.ways)

        def positive(x: torch.Tensor, where: slice, dim: int = axis) -> torch.Tensor:
            return call.select(x.narrow(dim, where.start, where.stop - where.start))

        def tokens(where: slice) -> Tokens:
            return Tokens(positive(k, where), positive(v, where), self._mask(attention.mask, where, target))

        i, p = tokens(image), tokens(text)
        q_i = positive(q, target)
        kept = None if kept is None else positive(kept, target, 2)
        state.start_streams(q_i.shape[0])
        for stream in state.streams:
            self._run_negative(stream, i, q.shape[0])
        chosen = {stream.term.number: stream for stream in state.streams if self.key in stream.term.keys_values}
        if not chosen:
            return attention.as_returned(z)

        shares: dict[int, torch.Tensor | None] = {}

        def respond(term: Term) -> torch.Tensor:
            n, _ = chosen[term.number].found
            response = term.method.in_joint_attention
            z_neg, shares[term.number], used = respond_to_negative(attention, response, way, kept, q_i, n, p, i)
            if used is not None:
                state.used.add(used)
            return z_neg

        def share(term: Term) -> torch.Tensor:
            return shares[term.number]

        before, after = z[:, : target.start], z[:, target.stop :]
        steered = call.steer(z[:, target], self.key, respond, lambda: state.grid, share=share)
        return attention.as_returned(torch.cat([before, steered, after], 1))

    def _attention(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Attention:
        # An override of another node gets the options that it was put in.
        kwargs = {**kwargs, "transformer_options": self._options}
        return Attention(function, self._override, args[3:], kwargs)

    def _places(self, queries: int, keys: int) -> tuple[slice, slice, slice]:
        """Where P, I, and of I the tokens of the picture itself are."""
        state, declared = self.state, self.declared
        if declared.text_length is not None:
            text = declared.text_length(state.network, self._arguments, state.call.prompt)
        elif declared.image is not None:
            text = self._arguments[declared.text].shape[1]
        else:
            text = state.text
        picture, image = prod(state.grid), queries - text
        if queries != keys or text <= 0 or image < picture or state.image_tokens not in (None, image):
            raise ValueError(
                f"NASA cannot steer block {self.name}: its attention has {queries} queries and {keys} keys, expected "
                f"{text} of the text and {state.image_tokens or f'at least {picture}'} of the picture. Another node "
                "or a reference picture adds tokens: remove that, or NASA Apply"
            )
        state.text = text
        start = 0 if declared.image_first else text
        first = start if state.target_first else start + image - picture
        text_start = image if declared.image_first else 0
        target = slice(first, first + picture) if declared.target is None else declared.target(self._arguments)
        return slice(text_start, text_start + text), slice(start, start + image), target

    def _mask(self, mask: Mask, keys: slice, queries: slice) -> Mask:
        """The part of the host's own mask for these keys and queries, of the positive rows."""
        if mask is None:
            return None
        mask = mask[..., keys]
        if mask.ndim >= 2 and mask.shape[-2] > 1:
            mask = mask[..., queries, :]
        return mask if mask.ndim < 3 or mask.shape[0] == 1 else self.state.call.select(mask)

    def _run_negative(self, stream: Stream, i: Tokens, rows: int) -> None:
        """Run the block for a negative: N's keys and values for this block, and its text for the next one."""
        call, declared, context = self.state.call, self.declared, stream.term.context
        tokens, positive_rows = stream.tokens, i.k.shape[0]
        if context.joined:
            tokens = torch.cat([tokens, call.repeat(context.joined[self.key], positive_rows)], 1)
        length = tokens.shape[1]
        arguments = dict(self._arguments)
        for name, value in context.own.items():
            arguments[name] = value if declared.merge is None else declared.merge(arguments[name], value)
        if declared.check is not None:
            declared.check(arguments, length)
        for name in declared.conditioning:
            if name in arguments:
                arguments[name] = select_rows(call, arguments[name], rows)
        arguments[declared.text] = tokens if declared.has_rows else tokens[0]
        if declared.image is not None:
            arguments[declared.image] = call.select(arguments[declared.image][:, :1]).clone()
        if declared.positions is not None:
            name, dim = declared.positions
            first = 1 - declared.stand_ins if declared.image_first else 0
            own = narrow(context.positions, dim, first, length + declared.stand_ins)
            arguments[name] = _for_rows(call, own, arguments.get(name), positive_rows, dim)
        if declared.text_positions is not None:
            arguments[declared.text_positions] = context.positions
        for name, dim in declared.image_positions:
            arguments[name] = narrow(arguments.get(name), dim, 0, 1)
        if declared.mask is not None:
            theirs = arguments.get(declared.mask)
            has_rows = context.mask is not None and (theirs is None or theirs.shape[0] > 1)
            arguments[declared.mask] = call.repeat(context.mask, positive_rows) if has_rows else context.mask
        # Patches of other nodes are made for the prompt's text and picture.
        options = {key: value for key, value in self._options.items() if key not in ("patches", "patches_replace")}
        self._stream, self._image, attended = stream, i, self._attended
        self._attended = 0
        result = self._run(arguments, {**options, "optimized_attention_override": self.attend_negative})
        self._stream = self._image = None
        self._attended = attended
        text = declared.own_text(result if declared.has_rows else result.unsqueeze(0))
        # What was joined is for this block only. The last block of some networks returns no text.
        stream.tokens = text[:, : stream.tokens.shape[1]] if context.joined else text

    def attend_negative(self, function: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The override for a negative's run of the block: N's queries over [N ; I]; zeros for the image's stand-in."""
        attention, declared = self._attention(function, args, kwargs), self.declared
        q, k, v = args[:3]
        axis, stand_ins = attention.axis, declared.stand_ins
        self._attended += 1
        if self._attended > 1:  # of the stand-in alone
            shape = (q.shape[0], q.shape[axis], q.shape[-1] if axis == 1 else q.shape[1] * q.shape[3])
            return attention.as_returned(q.new_zeros(shape))
        v = v.flatten(2) if v.ndim > q.ndim else v
        length, i = q.shape[axis] - stand_ins, self._image
        first = stand_ins if declared.image_first else 0
        q, k, v = (x.narrow(axis, first, length) for x in (q, k, v))
        own, for_image = _split_mask(attention.mask, length, i.k.shape[axis], declared.image_first, q.dtype)
        self._stream.found = Tokens(k, v, for_image), own
        z = attention(q, torch.cat([k, i.k], axis), torch.cat([v, i.v], axis), own)
        padding = (0, 0, stand_ins, 0) if declared.image_first else (0, 0, 0, stand_ins)
        return attention.as_returned(torch.nn.functional.pad(z, padding) if stand_ins else z)


def _for_rows(call: Call, own: Any, theirs: Any, rows: int, dim: int) -> Any:
    """Positions of a negative, with a row for each picture if the positive's have that."""
    if isinstance(own, tuple | list):
        return type(own)(_for_rows(call, a, b, rows, dim) for a, b in zip(own, theirs, strict=True))
    if own is None or dim == 0 or theirs.shape[0] == 1:
        return own
    return call.repeat(own, rows)


def _split_mask(mask: Mask, length: int, image: int, image_first: bool, dtype: torch.dtype) -> tuple[Mask, Mask]:
    """The mask over [N ; I] for N's queries, and the mask over N for the image's queries.

    Args:
        mask: over N and one image token, (..., 1 or N + 1, N + 1).
    """
    if mask is None:
        return None, None
    assert mask.shape[-1] == length + 1, f"a mask over {mask.shape[-1]} keys, for {length} of text and one of the image"
    text, one = (slice(1, None), slice(0, 1)) if image_first else (slice(0, length), slice(length, length + 1))
    over_text, over_image = mask[..., text], mask[..., one]
    for_image = over_text
    if mask.shape[-2] > 1:
        over_text, over_image, for_image = over_text[..., text, :], over_image[..., text, :], for_image[..., one, :]
    over_image = over_image.expand(*over_image.shape[:-1], image)
    return join_masks([(over_text, length), (over_image, image)], dtype), for_image


def _warn_of_skipped(names: Sequence[str]) -> None:
    logging.warning(
        "NASA Apply: another node skips %s of the network, so the negative skips it too. If that node keeps the "
        "results of earlier steps, the negative acts less exactly; remove it, or NASA Apply, if you see faults",
        names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}",
    )
