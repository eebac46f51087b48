"""All prompts of a source in any order, in little memory: text in a temporary file, 16 bytes of memory a prompt."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from training.console import long_step
from training.prompts.shards import Shard

_IN_MEMORY = 64 * 2**20  # bytes of text; more are moved to a file, which the system deletes with the process


def prompt_of(cell: Any) -> str:
    """The prompt in a cell, "" if it is not text."""
    if not isinstance(cell, str):
        return ""
    # JSON allows lone surrogates, on which the tokenizer would fail in the middle of a run.
    return cell.encode("utf-8", "ignore").decode("utf-8").strip()


class PromptStore:
    """The prompts of all shards, read once. empty: number of rows without text.

    Raises:
        ValueError: a shard cannot be read.
        OSError: the temporary file cannot be written.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.empty, self._rows = 0, list[range]()
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - open as long as the store
        ends, end = array("q"), 0
        with long_step("reading all prompts, to shuffle them", at_once=False):
            for shard in shards:
                first = len(ends)
                for cell in shard.read():
                    if text := prompt_of(cell).encode():
                        end += self._write(text)
                        ends.append(end)
                    else:
                        self.empty += 1
                self._rows.append(range(first, len(ends)))
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def shuffled(self, shards: Iterable[int], rng: torch.Generator) -> StoredPrompts:
        """The prompts of the shards in the given order, permuted by `rng`."""
        rows = np.concatenate([np.arange(self._rows[n].start, self._rows[n].stop) for n in shards])
        return StoredPrompts(self, rows[torch.randperm(len(rows), generator=rng).numpy()])

    def text(self, row: int) -> str:
        start, end = int(self._ends[row - 1]) if row else 0, int(self._ends[row])
        self._file.seek(start)
        return self._file.read(end - start).decode()

    def _write(self, text: bytes) -> int:
        try:
            return self._file.write(text)
        except OSError as error:
            raise OSError(
                f"the prompts cannot be shuffled together: {error}, in the folder for temporary files, "
                f"{tempfile.gettempdir()}; set TMPDIR to a larger disk, or give prompts.shuffle_block=65536"
            ) from error


class StoredPrompts:
    """Prompts of a store, in the order of `rows`."""

    def __init__(self, store: PromptStore, rows: np.ndarray) -> None:
        self._store, self._rows = store, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, places: slice) -> list[str]:
        return [self._store.text(int(row)) for row in self._rows[places]]
