"""Look up the text embeddings of prompts in a finished cache.

Dimensions: B prompts, S tokens, E text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional

from training.models.text_cache.manifest import HOW_TO_BUILD, MANIFEST, check_same_encoder, read_manifest
from training.models.text_cache.shard import Index, digest, key, read_index
from training.models.text_embeddings import TextEmbeddings

Encode = Callable[[list[str]], TextEmbeddings]


class TextCache:
    """A finished cache. Its shards are memory-mapped, so the processes of a machine share one copy.

    max_tokens: S. masked: whether shorter prompts have a mask (T5) or all have S tokens (CLIP).
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], indices: dict[str, Index]) -> None:
        self.folder, self.max_tokens, self.masked = folder, manifest["encoder"]["max_tokens"], manifest["masked"]
        self.pooled_width = manifest["encoder"].get("pooled")
        self._names, self._indices = list(indices), list(indices.values())
        self._first = np.cumsum([0, *map(len, self._indices)])  # index of each shard's first prompt
        keys = np.concatenate([_comparable(index.keys) for index in self._indices])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._files: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: Path, encoder: dict[str, Any]) -> TextCache:
        """Open the cache in `folder`, which must be of `encoder` (as `describe_encoder` returns it).

        Raises:
            FileNotFoundError: there is no finished cache.
            ValueError: it was made by another encoder or version, or a shard is missing or damaged.
        """
        manifest = read_manifest(folder)
        check_same_encoder(manifest["encoder"], encoder, folder)
        indices = {}
        for name, expected in manifest["shards"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != expected["bytes"]:
                raise ValueError(
                    f"{path} is missing or cut short; delete it and {folder / MANIFEST}, and {HOW_TO_BUILD}"
                )
            indices[name], _ = read_index(path)
            if indices[name].sha256() != expected["index"]:
                raise _damaged(path)
        return cls(folder, manifest, indices)

    def lookup(self, prompts: list[str], encode: Encode | None = None) -> TextEmbeddings:
        """Embeddings of B prompts: states (B, S, E) bf16 on the CPU, zero where mask (B, S) is False.

        Args:
            encode: encodes prompts that are not in the cache.

        Raises:
            ValueError: a prompt is not in the cache and there is no `encode`, or a shard is damaged.
        """
        if encode is None:
            self.check_holds(prompts)
        found = self._find(prompts)
        absent = [prompt for prompt, number in zip(prompts, found, strict=True) if number < 0]
        encoded = iter(trimmed(encode(absent)) if absent and encode else ())
        rows = [self._row(int(number)) if number >= 0 else next(encoded) for number in found]
        pooled = None
        if self.pooled_width is not None:
            pooled = torch.stack([row[-1, : self.pooled_width] for row in rows])
            rows = [row[:-1] for row in rows]
        states = torch.stack([functional.pad(row, (0, 0, 0, self.max_tokens - len(row))) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        return TextEmbeddings(
            states=states,
            mask=torch.arange(self.max_tokens) < lengths[:, None] if self.masked else None,
            pooled=pooled,
        )

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """The number of tokens of each prompt before it was cut, as counted when the cache was built.

        Raises:
            ValueError: a prompt is not in the cache.
        """
        self.check_holds(prompts)
        places = map(self._place, self._find(prompts).tolist())
        return [int(self._indices[shard].tokens[row]) for shard, row in places]

    def check_holds(self, prompts: Iterable[str]) -> None:
        """Check that every one of `prompts` is in the cache.

        Raises:
            ValueError: some are not; the message says how many, and names the first.
        """
        total, missing, first = 0, 0, ""
        prompts = iter(prompts)
        while chunk := list(islice(prompts, 4096)):
            absent = np.flatnonzero(self._find(chunk) < 0)
            first = first or (chunk[absent[0]] if len(absent) else "")
            total, missing = total + len(chunk), missing + len(absent)
        if missing:
            raise ValueError(
                f"{missing} of {total} prompts are not in the text cache {self.folder}, first {first[:200]!r}; "
                f"{HOW_TO_BUILD}"
            )

    def _find(self, prompts: Iterable[str]) -> np.ndarray:
        """The index of each prompt, -1 for those that are absent."""
        wanted = np.array([key(prompt) for prompt in prompts], dtype=self._keys.dtype)
        at = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._order[at], -1)

    def _place(self, number: int) -> tuple[int, int]:
        """(shard, row in it) of a prompt by its index."""
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        return shard, number - int(self._first[shard])

    def _row(self, number: int) -> torch.Tensor:
        """The states of one prompt, (its number of tokens, E)."""
        shard, row = self._place(number)
        path, index = self.folder / self._names[shard], self._indices[shard]
        start, stop = index.offsets[row : row + 2].tolist()
        try:
            if path.name not in self._files:
                self._files[path.name] = safe_open(path, framework="pt")  # memory-mapped; keeps no file handle open
            states = self._files[path.name].get_slice("states")[start:stop]
        except (SafetensorError, OSError) as error:
            raise _damaged(path) from error
        if digest(states) != index.digests[row].tobytes():
            raise _damaged(path)
        return states


def trimmed(text: TextEmbeddings) -> list[torch.Tensor]:
    """The states of each prompt without padding, (its number of tokens, E), bf16 on the CPU.

    A pooled embedding (P <= E) becomes one more row, after the last token, filled up with zeros.

    Raises:
        ValueError: a mask has gaps or does not begin at the first token.
    """
    states = text.states.detach().to("cpu", torch.bfloat16)
    if text.pooled is not None:
        last = functional.pad(
            text.pooled.detach().to("cpu", torch.bfloat16), (0, states.shape[-1] - text.pooled.shape[-1])
        )
        states = torch.cat([states, last[:, None]], dim=1)
    if text.mask is None:
        return list(states.unbind())
    lengths = text.mask.sum(1).tolist()
    if not all(mask[:length].all() for mask, length in zip(text.mask, lengths, strict=True)):
        raise ValueError("the tokenizer pads prompts on the left; only padding on the right can be cached")
    return [row[:length] for row, length in zip(states.unbind(), lengths, strict=True)]


def _comparable(keys: np.ndarray) -> np.ndarray:
    """(P, 16) bytes as (P,) of a dtype that can be sorted."""
    return np.ascontiguousarray(keys).view(f"S{keys.shape[1]}").reshape(-1)


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged: its contents do not match the hash from when it was written; delete it and "
        f"{path.with_name(MANIFEST)}, and {HOW_TO_BUILD}"
    )
