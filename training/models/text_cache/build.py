"""Build a text cache: each process encodes its share and writes its own shards; the manifest comes last.

Shards are written atomically and list their prompts. An interrupted build is continued by starting it again: prompts
that are in a shard already are skipped, whichever process wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from training.models.text_cache.cache import Encode, trimmed
from training.models.text_cache.manifest import FORMAT, check_same_encoder, write_manifest
from training.models.text_cache.shard import key, read_index, write_shard

SHARD_PROMPTS, SHARD_BYTES = 4096, 1 << 28  # writing one takes about four times this much memory


def keys_in(folder: Path, encoder: dict[str, Any]) -> set[bytes]:
    """The keys of all prompts in the shards of `folder`, whether the cache is finished or not.

    Raises:
        ValueError: a shard is damaged, or was made by another encoder.
    """
    found: set[bytes] = set()
    for path in sorted(folder.glob("*.safetensors")):
        index, maker = read_index(path)
        check_same_encoder(maker, encoder, folder)
        found.update(map(bytes, index.keys))
    return found


def build_shards(
    folder: Path,
    prompts: Iterable[str],
    encode: Encode,
    count_tokens: Callable[[list[str]], list[int]],
    encoder: dict[str, Any],
    *,
    rank: int = 0,
    processes: int = 1,
    batch_size: int = 32,
    shard_prompts: int = SHARD_PROMPTS,
    progress: Callable[[int], object] = lambda encoded: None,
) -> None:
    """Encode and write this process's share of the prompts that are not in `folder` yet.

    Args:
        prompts: all of them, the same in every process; prompts may repeat.
        encoder: as `describe_encoder` returns it.
        progress: called with the number of prompts of each encoded batch.

    Raises:
        ValueError: the folder holds embeddings of another encoder or a damaged shard, or embeddings are not finite.
        OSError: a shard cannot be written; earlier shards are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f".{rank:04d}-*.tmp"):  # left by a process that was killed
        stale.unlink()
    done = keys_in(folder, encoder)
    shard = _Shard(folder, rank, encoder)
    batch: list[str] = []

    def flush() -> None:
        shard.add(batch, trimmed(encode(batch)), count_tokens(batch))
        progress(len(batch))
        batch.clear()

    for prompt in prompts:
        wanted = key(prompt)
        if wanted in done or int.from_bytes(wanted, "little") % processes != rank:
            continue
        done.add(wanted)
        batch.append(prompt)
        if len(batch) == batch_size:
            flush()
            if len(shard.rows) >= shard_prompts or shard.bytes >= SHARD_BYTES:
                shard.write()
    if batch:
        flush()
    if shard.rows:
        shard.write()


def finish(folder: Path, encoder: dict[str, Any], *, masked: bool) -> dict[str, Any]:
    """Write the manifest; call it in one process, after all processes have written their shards.

    Returns:
        The manifest: format, encoder, masked, prompts, tokens, bytes, and the size and index hash of each shard.
    """
    shards, prompts, tokens = {}, 0, 0
    for path in sorted(folder.glob("*.safetensors")):
        index, maker = read_index(path)
        check_same_encoder(maker, encoder, folder)
        prompts, tokens = prompts + len(index), tokens + int(index.offsets[-1])
        shards[path.name] = {"bytes": path.stat().st_size, "index": index.sha256()}
    manifest = {
        "format": FORMAT,
        "encoder": encoder,
        "masked": masked,
        "prompts": prompts,
        "tokens": tokens,
        "bytes": sum(shard["bytes"] for shard in shards.values()),
        "shards": shards,
    }
    write_manifest(folder, manifest)
    return manifest


class _Shard:
    """Collects rows until they are written as one shard."""

    def __init__(self, folder: Path, rank: int, encoder: dict[str, Any]) -> None:
        self.folder, self.rank, self.encoder = folder, rank, encoder
        taken = [int(path.stem.split("-")[1]) for path in folder.glob(f"{rank:04d}-*.safetensors")]
        self.number = max(taken, default=-1) + 1
        self._clear()

    def _clear(self) -> None:
        self.rows: list[torch.Tensor] = []
        self.keys: list[bytes] = []
        self.tokens: list[int] = []
        self.bytes = 0

    def add(self, prompts: list[str], rows: list[torch.Tensor], tokens: list[int]) -> None:
        self.rows += [row.clone() for row in rows]  # a view would keep the padding in memory
        self.keys += map(key, prompts)
        self.tokens += tokens
        self.bytes += sum(row.numel() * row.element_size() for row in rows)

    def write(self) -> None:
        path = self.folder / f"{self.rank:04d}-{self.number:06d}.safetensors"
        write_shard(path, self.rows, self.keys, self.tokens, self.encoder)
        self.number += 1
        self._clear()
