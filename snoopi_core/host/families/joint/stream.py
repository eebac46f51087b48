"""The negatives of one call on their way through the network.

Dimensions: Bn rows of a negative, R positive rows, N its text tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..base import Call, Context, Grid, Term
from .attention import Mask, Tokens
from .share import DEFAULT_WAYS, Way


@dataclass(frozen=True, kw_only=True)
class JointContext(Context):
    """A negative as it comes to the first joint block: tokens (Bn, N, C).

    mask: over N and one image token, which stands for all; or over N alone.
    positions: as the block takes them, of N and of one image token if the declaration has such positions.
    own: the arguments that the declaration names so.
    joined: for each block, text that is added for this block only, (Bn, tokens, C).
    """

    positions: Any = None
    own: Mapping[str, Any] = field(default_factory=dict)
    joined: tuple[torch.Tensor, ...] = ()


class Stream:
    """One negative on its way through the network."""

    def __init__(self, term: Term, rows: int, call: Call) -> None:
        self.term = term
        # Some blocks write into their input.
        self.tokens: torch.Tensor | None = call.repeat(term.context.tokens, rows).clone()
        self.found: tuple[Tokens, Mask] | None = None
        """Of the current block: N's keys and values with the mask for the image's queries, and that for N's own."""


@dataclass
class Pass:
    """One call of the network; reused, so that a compiled network sees the same object in each call.

    names: of all blocks, as in NASA Apply's `blocks`.
    network: the network.
    grid: of the picture's own tokens.
    image_tokens: I; None if references may add to the picture's own.
    target_first: whether the picture's own tokens come before others of the image.
    """

    ways: Sequence[Way] = DEFAULT_WAYS
    used: set[Way] = field(default_factory=set)
    names: Sequence[str] = ()
    call: Call | None = None
    network: Any = None
    grid: Grid = (1, 1, 1)
    image_tokens: int | None = None
    target_first: bool = True
    streams: list[Stream] = field(default_factory=list)
    text: int = 0
    """P, as of the last block."""
    reached: int = -1
    """The last block that ran."""

    def begin(self, call: Call, network: Any, grid: Grid, image_tokens: int | None, target_first: bool) -> None:
        self.call, self.network, self.grid = call, network, grid
        self.image_tokens, self.target_first = image_tokens, target_first
        self.streams, self.used, self.text, self.reached = [], set(), 0, -1

    def start_streams(self, rows: int) -> None:
        """Begin at the first block that runs; `rows` is R."""
        if not self.streams:
            self.streams = [Stream(term, rows, self.call) for term in self.call.terms]

    def end(self) -> None:
        self.call, self.network, self.streams = None, None, []
