"""Prompts in blocks, shuffled within each, with an exact position.

The library restores where a shard was read, but not its shuffle buffer. Here a block of rows is read in file order and
permuted by a generator that is seeded with (seed, epoch, block): to resume is to read one block again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from training.distill.rng import generator
from training.prompts import CountTokens
from training.prompts.sources import Shard

log = logging.getLogger(__name__)


class StreamedPrompts:
    """A `PromptSource` over shards. `block` = 1 keeps the order of files and rows; else both are shuffled."""

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        seed: int,
        block: int,
        count_tokens: CountTokens | None = None,
        max_tokens: int | None = None,
        skip_over_long: bool = False,
    ) -> None:
        self.shards, self.seed, self.block = shards, seed, block
        self.count_tokens, self.max_tokens, self.skip_over_long = count_tokens, max_tokens, skip_over_long
        self.counts = {"given": 0, "empty": 0, "over-long": 0, "epochs": 0}
        self._pass = _Pass(shards, self._order(0))
        self._given_before = 0  # this epoch
        self._read_block(0)

    def take(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            if self._offset == len(self._prompts):
                self._advance()
            chunk = self._prompts[self._offset : self._offset + count - len(found)]
            self._offset += len(chunk)
            chunk = self._fitting(chunk)
            self.counts["given"] += len(chunk)
            found += chunk
        return found

    def once(self) -> Iterator[str]:
        return (prompt for value in _Pass(self.shards, range(len(self.shards))) if (prompt := _prompt(value)))

    def state_dict(self) -> dict[str, Any]:
        """Where the present block begins, and how much of it has been given."""
        return {**self._start, "offset": self._offset, "counts": dict(self.counts), "source": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["source"] != self._identity():
            log.warning(
                "the prompt files are not those that the run was started with: it goes on at the same place in them, "
                "with other prompts than an uninterrupted run would have had"
            )
        epoch = state["counts"]["epochs"]
        self.counts["epochs"] = epoch
        self._pass = _Pass(self.shards, self._order(epoch), shard=state["shard"], row=state["row"])
        self._read_block(state["block"])
        self._offset = min(state["offset"], len(self._prompts))
        self.counts = dict(state["counts"])
        self._given_before = -1  # it had prompts when it was saved

    def _order(self, epoch: int) -> Sequence[int]:
        count = len(self.shards)
        if self.block == 1:
            return range(count)
        return torch.randperm(count, generator=generator(self.seed, "shards", epoch)).tolist()

    def _advance(self) -> None:
        """The next block, of the next epoch where this one is at its end."""
        self._read_block(self._start["block"] + 1)
        if self._prompts:
            return
        if self.counts["given"] == self._given_before:
            raise ValueError(self._nothing())
        self.counts["epochs"] += 1
        self._given_before = self.counts["given"]
        self._pass = _Pass(self.shards, self._order(self.counts["epochs"]))
        self._read_block(0)

    def _read_block(self, number: int) -> None:
        self._start = {"block": number, **self._pass.state_dict()}
        self._offset, prompts = 0, []
        for value in self._pass:
            if prompt := _prompt(value):
                prompts.append(prompt)
            else:
                self.counts["empty"] += 1
            if len(prompts) == self.block:
                break
        if not prompts and not number:
            raise ValueError(self._nothing())
        rng = generator(self.seed, "block", self.counts["epochs"], number)
        self._prompts = [prompts[n] for n in torch.randperm(len(prompts), generator=rng).tolist()]

    def _fitting(self, prompts: list[str]) -> list[str]:
        """Those that are to be given; over-long ones are counted."""
        if self.count_tokens is None or self.max_tokens is None or not prompts:
            return prompts
        long = [length > self.max_tokens for length in self.count_tokens(prompts)]
        self.counts["over-long"] += sum(long)
        return [p for p, is_long in zip(prompts, long, strict=True) if not (is_long and self.skip_over_long)]

    def _nothing(self) -> str:
        first, more = self.shards[0].name, len(self.shards) - 1
        left_out = f"{self.counts['empty']} rows without text"
        if self.skip_over_long and self.max_tokens is not None:
            left_out += f", {self.counts['over-long']} prompts of more than {self.max_tokens} tokens"
        return f"prompts {first}{f' and {more} more' if more else ''}: no usable prompt in all of it ({left_out})"

    def _identity(self) -> str:
        names = json.dumps([(shard.name.rpartition("/")[2], shard.size) for shard in self.shards])
        return hashlib.sha256(names.encode()).hexdigest()[:16]


class _Pass:
    """One pass over shards in a given order, from a given position; iterate it in pieces, by a `for` that breaks."""

    def __init__(self, shards: Sequence[Shard], order: Sequence[int], *, shard: int = 0, row: int = 0) -> None:
        self.shards, self.order, self.shard, self.row = shards, order, shard, row
        self._values = self._walk()

    def __iter__(self) -> Iterator[Any]:
        return self._values

    def state_dict(self) -> dict[str, int]:
        """Behind the row that was given last: how many shards are done, and how many rows of the open one."""
        return {"shard": self.shard, "row": self.row}

    def _walk(self) -> Iterator[Any]:
        while self.shard < len(self.order):
            for value in self.shards[self.order[self.shard]].read(self.row):
                self.row += 1
                yield value
            self.shard, self.row = self.shard + 1, 0


def _prompt(value: Any) -> str:
    """A row's prompt, "" where it holds no text."""
    if not isinstance(value, str):
        return ""
    # Half of a surrogate pair, which JSON allows, would stop the tokenizer in the middle of a run.
    return value.encode("utf-8", "ignore").decode("utf-8").strip()
