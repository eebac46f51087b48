"""Prompts that are shuffled together, or in blocks one by one, with an exact position.

The datasets library can restore the position in a shard, but not its shuffle buffer. Here a block of rows is read in
file order and permuted by a generator seeded with (seed, epoch, block), so resuming means reading one block again. All
prompts together are one block, which is kept in a store (store.py) and read once.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakSet

import torch

from training.distill.rng import generator
from training.prompts.shards import Shard
from training.prompts.source import CountTokens, new_counts
from training.prompts.store import PromptStore, StoredPrompts, prompt_of

log = logging.getLogger(__name__)
_OPEN: WeakSet[Any] = WeakSet()  # passes that are not finished


@atexit.register
def _close_passes() -> None:
    """Python would end before the threads of a half-read parquet file, and then abort."""
    for values in list(_OPEN):
        values.close()


class StreamedPrompts:
    """A `PromptSource` over shards. With `block` = 1 files and rows keep their order, otherwise both are shuffled; with
    0 all prompts are one block."""

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
        self.counts = new_counts()
        self._store = None if block else PromptStore(shards)
        self._pass = _Pass(shards, self._order(0))
        self._given_before = 0  # counts["given"] at the start of this epoch
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

    def one_pass(self) -> Iterator[str]:
        return (prompt for value in _Pass(self.shards, range(len(self.shards))) if (prompt := prompt_of(value)))

    def describe(self) -> list[str]:
        first, count = self.shards[0], len(self.shards)
        files = first.name if count == 1 else f"{first.name} and {count - 1} more"
        order = "in order" if self.block == 1 else f"shuffled in blocks of {self.block}"
        if self._store is not None:
            order = f"{len(self._store)} prompts, shuffled together"
        return [f"{files}: {first.reading}; {order}"]

    def state_dict(self) -> dict[str, Any]:
        """Where the current block begins, how much of it has been given, and the counts."""
        return {**self._start, "offset": self._offset, "counts": dict(self.counts), "source": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["source"] != self._identity():
            log.warning(
                "the prompt files have changed since the run was started, or are read in another way now: it continues "
                "at the same position in them, with other prompts than an uninterrupted run would have had"
            )
        epoch = state["counts"]["epochs"]
        self.counts["epochs"] = epoch
        self._pass = _Pass(self.shards, self._order(epoch), shard=state["shard"], row=state["row"])
        self._read_block(state["block"])
        self._offset = min(state["offset"], len(self._prompts))
        self.counts = dict(state["counts"])
        self._given_before = -1  # the source had prompts when the state was saved

    def _order(self, epoch: int) -> Sequence[int]:
        count = len(self.shards)
        if self.block == 1:
            return range(count)
        return torch.randperm(count, generator=generator(self.seed, "shards", epoch)).tolist()

    def _advance(self) -> None:
        """Read the next block; at the end of the epoch, the first one of the next epoch."""
        self._read_block(self._start["block"] + 1)
        if self._prompts:
            return
        if self.counts["given"] == self._given_before:
            raise ValueError(self._no_prompts())
        self.counts["epochs"] += 1
        self._given_before = self.counts["given"]
        self._pass = _Pass(self.shards, self._order(self.counts["epochs"]))
        self._read_block(0)

    def _read_block(self, number: int) -> None:
        self._start = {"block": number, **self._pass.state_dict()}
        self._offset, prompts = 0, []
        rng = generator(self.seed, "block", self.counts["epochs"], number)
        if self._store is not None:
            self._read_store(number, rng)
            return
        for value in self._pass:
            if prompt := prompt_of(value):
                prompts.append(prompt)
            else:
                self.counts["empty"] += 1
            if len(prompts) == self.block:
                break
        if not prompts and not number:
            raise ValueError(self._no_prompts())
        order = torch.randperm(len(prompts), generator=rng).tolist()
        self._prompts: list[str] | StoredPrompts = [prompts[n] for n in order]

    def _read_store(self, number: int, rng: torch.Generator) -> None:
        """All prompts as block 0; there is no other one."""
        if number:
            self._prompts = []
            return
        self.counts["empty"] += self._store.empty
        self._prompts = self._store.shuffled(self._order(self.counts["epochs"]), rng)
        if not self._prompts:
            raise ValueError(self._no_prompts())

    def _fitting(self, prompts: list[str]) -> list[str]:
        """The prompts to give; over-long ones are counted, and left out if they are to be skipped."""
        if self.count_tokens is None or self.max_tokens is None or not prompts:
            return prompts
        long = [length > self.max_tokens for length in self.count_tokens(prompts)]
        self.counts["over-long"] += sum(long)
        return [p for p, is_long in zip(prompts, long, strict=True) if not (is_long and self.skip_over_long)]

    def _no_prompts(self) -> str:
        first, more = self.shards[0].name, len(self.shards) - 1
        left_out = f"{self.counts['empty']} rows without text"
        if self.skip_over_long and self.max_tokens is not None:
            left_out += f", {self.counts['over-long']} prompts of more than {self.max_tokens} tokens"
        return f"prompts {first}{f' and {more} more' if more else ''}: no usable prompt in any of it ({left_out})"

    def _identity(self) -> str:
        names = json.dumps(
            [(shard.name.rpartition("/")[2], shard.size, *[shard.reading] * shard.changed) for shard in self.shards]
        )
        return hashlib.sha256(names.encode()).hexdigest()[:16]


class _Pass:
    """One pass over shards in a given order, from a given position. A `for` loop that breaks can be continued."""

    def __init__(self, shards: Sequence[Shard], order: Sequence[int], *, shard: int = 0, row: int = 0) -> None:
        self.shards, self.order, self.shard, self.row = shards, order, shard, row
        self._values = self._walk()
        _OPEN.add(self._values)

    def __iter__(self) -> Iterator[Any]:
        return self._values

    def state_dict(self) -> dict[str, int]:
        """The position after the last row given: how many shards are finished, and how many rows of the current one."""
        return {"shard": self.shard, "row": self.row}

    def _walk(self) -> Iterator[Any]:
        while self.shard < len(self.order):
            for value in self.shards[self.order[self.shard]].read(self.row):
                self.row += 1
                yield value
            self.shard, self.row = self.shard + 1, 0
