"""One file of cached text embeddings: safetensors, with an index of its prompts and a hash of each row.

Dimensions: P prompts, N tokens of all of them together, E text width.

    states   (N, E) bf16    the embeddings of all prompts in sequence, without padding
    offsets  (P + 1) int64  where each prompt's tokens begin
    keys     (P, 16) uint8  first half of the SHA-256 of the prompt
    digests  (P, 16) uint8  the same for the bytes of the prompt's states
    tokens   (P) int32      number of tokens of the prompt before it was cut

The header describes the encoder. The index is everything except `states`, and the manifest has its hash. So all data is
verified when it is read, and opening a cache of a terabyte takes no longer than a small one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from snoopi_core.formats.tensor_file import save_atomically

_HEADER = "snoopi.text_cache"
_BYTES = 16  # bytes of a hash; two of 2^64 prompts are likely to share a key, but not of fewer


def key(prompt: str) -> bytes:
    """The key by which a prompt is looked up."""
    return hashlib.sha256(prompt.encode()).digest()[:_BYTES]


def digest(states: torch.Tensor) -> bytes:
    """The hash of the states (S, E) of one prompt, on the CPU."""
    return hashlib.sha256(states.contiguous().view(torch.uint8).numpy()).digest()[:_BYTES]


@dataclass(frozen=True, kw_only=True)
class Index:
    """The arrays of a shard other than the embeddings; shapes and dtypes as listed at the top of this file."""

    offsets: np.ndarray
    keys: np.ndarray
    digests: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def sha256(self) -> str:
        content = hashlib.sha256()
        for array in (self.offsets, self.keys, self.digests, self.tokens):
            content.update(array.tobytes())
        return content.hexdigest()


def write_shard(
    path: Path, rows: list[torch.Tensor], keys: list[bytes], tokens: list[int], encoder: dict[str, Any]
) -> None:
    """Write a shard atomically.

    Args:
        rows: the states (S, E) bf16 of each prompt, on the CPU.
        keys, tokens: key and number of tokens of each prompt.
        encoder: as `describe_encoder` returns it.

    Raises:
        OSError: it cannot be written.
    """
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    tensors = {
        "states": torch.cat(rows),
        "offsets": lengths.cumsum(0),
        "keys": _as_tensor(keys),
        "digests": _as_tensor([digest(row) for row in rows]),
        "tokens": torch.tensor(tokens, dtype=torch.int32),
    }
    save_atomically(path, tensors, {_HEADER: json.dumps(encoder, sort_keys=True)})


def read_index(path: Path) -> tuple[Index, dict[str, Any]]:
    """The index of a shard, and the description of its encoder.

    Raises:
        ValueError: the file is damaged or not a shard.
    """
    try:
        with safe_open(path, framework="np") as file:
            encoder = json.loads((file.metadata() or {})[_HEADER])
            arrays = {name: file.get_tensor(name) for name in ("offsets", "keys", "digests", "tokens")}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or not a shard of text embeddings: {error}; delete it and build the cache again"
        ) from error
    return Index(**arrays), encoder


def _as_tensor(hashes: list[bytes]) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, _BYTES).copy())
