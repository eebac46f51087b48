"""How networks of joint attention call their blocks: what each network class declares, and helpers for it.

Dimensions: B rows of a call, R rows of its positive ones, P and N tokens of the positive's and the negative's text,
I image tokens, C channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from ....guidance.blocks import Block
from ..base import Call, Context, KeysValues

Arguments = Mapping[str, Any]
"""Of a block, by name."""


@dataclass(frozen=True, kw_only=True)
class JointBlock:
    """How a class of blocks is called: names of its arguments, and the order of tokens.

    text, image: the arguments with the tokens, (B, tokens, C). Without `image`, `text` has both in one tensor.
    conditioning: arguments with a row for each picture: tensors, or tuples, lists and dataclasses of them.
    positions: the rotary positions of text and image together, and their dimension of tokens.
    text_positions: those of the text alone, tokens first, without rows.
    image_positions: arguments with those of the image alone, and their dimension of tokens.
    mask: the mask over keys, or over queries and keys; or over the text alone.
    text_length: finds P if it is not the length of `text`, from the network, the block's arguments and the length of
        the prompt as it came to the network; without `image`, the default is the last block's P.
    image_first: the image comes before the text in queries, keys and values.
    returns_text_first: of two results, the text is the first.
    positional: names of arguments that the block's own signature does not name.
    own: arguments that a negative has of its own; `merge` makes them from the positive's and the negative's.
    has_rows: whether the tokens have a dimension of rows.
    target: where among all tokens those of the picture are; the default is the grid's number of them.
    check: raises ValueError for arguments with which a negative of N tokens cannot be run.
    """

    text: str
    image: str | None = None
    conditioning: tuple[str, ...] = ()
    positions: tuple[str, int] | None = None
    text_positions: str | None = None
    image_positions: tuple[tuple[str, int], ...] = ()
    mask: str | None = None
    text_length: Callable[[Any, Arguments, int], int] | None = None
    image_first: bool = False
    returns_text_first: bool = False
    positional: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    merge: Callable[[Any, Any], Any] | None = None
    has_rows: bool = True
    target: Callable[[Arguments], slice] | None = None
    check: Callable[[Arguments, int], None] | None = None

    @property
    def stand_ins(self) -> int:
        """Image tokens beside a negative's text: the host's two-stream blocks cannot run without any."""
        return 0 if self.image is None else 1

    def names(self, module: torch.nn.Module) -> tuple[str, ...]:
        """The names of the block's arguments that may be positional."""
        return self.positional or tuple(inspect.signature(type(module).forward).parameters)[1:]

    def own_text(self, result: Any) -> torch.Tensor | None:
        """The text among a block's results."""
        if self.image is None:
            return result
        return result[0 if self.returns_text_first else 1]


@dataclass(frozen=True)
class JointLayer:
    """One joint block."""

    block: Block
    module: torch.nn.Module
    declared: JointBlock

    def keys_values(self, context: Context) -> KeysValues | None:
        """None: from the second block on, the negative's text depends on the image."""
        return None


def img_slice(network: Any, arguments: Arguments, prompt: int) -> int:
    """P where the host gives its blocks [P, P + I] as `img_slice`."""
    return arguments["transformer_options"]["img_slice"][0]


def prompt_length(network: Any, arguments: Arguments, prompt: int) -> int:
    """P where the network changes nothing in the length of the prompt."""
    return prompt


def named(names: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


def select_rows(call: Call, value: Any, rows: int) -> Any:
    """The positive rows of an argument with `rows` rows; twice as many are two halves, as for references at time 0.

    Raises:
        ValueError: another number of rows.
    """
    if value is None or all(call.positive):
        return value
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 or value.shape[0] == 1:
            return value
        if value.shape[0] == rows:
            return call.select(value)
        if value.shape[0] == 2 * rows:
            return torch.cat([call.select(half) for half in value.chunk(2)])
        raise ValueError(
            f"NASA cannot steer this call: its conditioning has {value.shape[0]} rows for {rows} pictures. Another "
            "node changes the conditioning of single blocks; remove it, or NASA Apply"
        )
    if isinstance(value, tuple | list):
        return type(value)(select_rows(call, each, rows) for each in value)
    if is_dataclass(value):
        parts = {each.name: select_rows(call, getattr(value, each.name), rows) for each in fields(value)}
        return type(value)(**parts)
    return value


def narrow(value: Any, dim: int, start: int, length: int) -> Any:
    """A part of a tensor, or of each tensor of a tuple, along `dim`."""
    if isinstance(value, tuple | list):
        return type(value)(narrow(each, dim, start, length) for each in value)
    return None if value is None else value.narrow(dim, start, length)
