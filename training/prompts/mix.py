"""Several sources of prompts as one, each with its share of the prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch

from training.distill.rng import generator
from training.prompts.source import PromptSource

_BLOCK = 4096  # prompts whose sources are drawn at once


class MixedPrompts:
    """A `PromptSource` that draws each prompt's source at random, by weight.

    The draw depends on the seed and the number of prompts given before, so the position is that of each source and this
    number. counts: the sources' sums; "epochs" is that of the source with the fewest.
    """

    def __init__(self, sources: Sequence[PromptSource], weights: Sequence[float], seed: int) -> None:
        self.sources, self.weights, self.seed, self._given = sources, weights, seed, 0
        self._bounds = (torch.tensor(weights, dtype=torch.float64) / sum(weights)).cumsum(0)

    @property
    def counts(self) -> dict[str, int]:
        each = [source.counts for source in self.sources]
        return {name: (min if name == "epochs" else sum)(counts[name] for counts in each) for name in each[0]}

    def take(self, count: int) -> list[str]:
        picks = self._picks(count)
        given = [iter(s.take(picks.count(n)) if n in picks else ()) for n, s in enumerate(self.sources)]
        self._given += count
        return [next(given[n]) for n in picks]

    def one_pass(self) -> Iterator[str]:
        return chain.from_iterable(source.one_pass() for source in self.sources)

    def describe(self) -> list[str]:
        shares = (torch.tensor(self.weights) / sum(self.weights)).tolist()
        return [
            f"{share:.3g} of the prompts from {line}"
            for share, source in zip(shares, self.sources, strict=True)
            for line in source.describe()
        ]

    def state_dict(self) -> dict[str, Any]:
        return {
            "sources": [source.state_dict() for source in self.sources],
            "given": self._given,
            "counts": self.counts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, if the state is of other kinds of sources; then no position has changed."""
        if [one.keys() for one in state["sources"]] != [source.state_dict().keys() for source in self.sources]:
            raise KeyError("sources")
        for source, saved in zip(self.sources, state["sources"], strict=True):
            source.load_state_dict(saved)
        self._given = state["given"]

    def _picks(self, count: int) -> list[int]:
        """The source of each of the next `count` prompts."""
        found: list[int] = []
        while len(found) < count:
            block, offset = divmod(self._given + len(found), _BLOCK)
            drawn = torch.rand(_BLOCK, generator=generator(self.seed, "mix", block), dtype=torch.float64)
            picks = torch.searchsorted(self._bounds, drawn, right=True).clamp(max=len(self.sources) - 1)
            found += picks[offset : offset + count - len(found)].tolist()
        return found
