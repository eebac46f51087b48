"""Safetensors files: opened with suspicion, written whole or not at all.

Everything a file claims is compared with its size before a single weight is looked at, and weights are mapped into
memory rather than read, so a file costs what is really used of it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .atomic import replacing

StateDict = dict[str, torch.Tensor]

# Past any published file (SDXL with text encoders and EMA: 5,000 tensors, header 0.6 MB), and still quick to look at.
_MOST_HEADER, _MOST_TENSORS = 2**24, 20_000
_MOST_DIMENSIONS = 8  # past 64, many of torch's functions raise
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_AGAIN = "copy or download it again, and compare its size with the source"


class CheckpointError(ValueError):
    """A file that cannot be used; the message says which file, what is wrong with it and what to do."""

    # The host puts this before the message, and inside it the pack's own name is a path.
    __module__ = "snoopi"

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))


def readable(text: str, most: int = 1800) -> str:
    """Text that may quote a file or a file's name, fit for a log: one line, no control characters, not too long.

    Of what is too long the beginning and the end stay: files' names stand in front, advice at the end.
    """
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in _shortened(text, most))
    return _shortened("".join(escaped), most)


def _shortened(text: str, most: int) -> str:
    end = most // 3
    return text if len(text) <= most else f"{text[: most - end]} [...] {text[-end:]}"


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header has been read and found sound."""

    path: Path
    metadata: dict[str, str]
    names: tuple[str, ...]

    def read(self, names: Iterable[str] | None = None) -> StateDict:
        """Weights by name, all of them when None, on the CPU and in the dtype of the file.

        Raises:
            CheckpointError: the file has changed since, a weight's dtype is one that this torch does not have, or its
                shape has more dimensions than any model's.
        """
        weights = {}
        try:
            with safe_open(self.path, framework="pt") as file:
                for name in self.names if names is None else names:
                    weights[name] = file.get_tensor(name)
        except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path.name}: a weight cannot be read ({error}); {_AGAIN}") from error
        for name, weight in weights.items():
            if weight.ndim > _MOST_DIMENSIONS:
                raise CheckpointError(
                    f"{self.path.name}: {name} has {weight.ndim} dimensions, expected at most {_MOST_DIMENSIONS}; "
                    f"{_AGAIN}"
                )
        return weights


def open_tensor_file(path: str | PathLike[str], expected: str = "checkpoint") -> TensorFile:
    """Read and check the header only.

    Args:
        expected: what the caller is looking for, for messages.

    Raises:
        CheckpointError: no such file, not safetensors (a pickle is named as such and never opened), truncated, names
            given twice, or a header larger than any model's.
    """
    path = Path(path)
    _check_kind(path, expected)
    try:
        with open(path, "rb") as raw:
            (size,) = struct.unpack("<Q", raw.read(8).ljust(8, b"\0"))
        if size > _MOST_HEADER:
            raise CheckpointError(
                f"{path.name} is damaged or no model: its header claims {size} bytes, expected at most {_MOST_HEADER}"
            )
        with safe_open(path, framework="pt") as file:  # compares shapes, offsets and the file's size
            metadata, names = file.metadata() or {}, tuple(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged or cut short ({error}); {_AGAIN}") from error
    except RuntimeError as error:  # torch's, where the system cannot map so large a file
        raise CheckpointError(f"{path.name} cannot be opened ({error}); is it really a model of that size?") from error
    if len(names) > _MOST_TENSORS:
        raise CheckpointError(f"{path.name} holds {len(names)} tensors, expected at most {_MOST_TENSORS}")
    _check_for_doubles(path, size)
    return TensorFile(path, metadata, names)


def save_atomically(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str]) -> Path:
    """Write a file so that a reader sees the old one or the whole new one, never half of one.

    Raises:
        CheckpointError: another suffix than `.safetensors`, or a weight that is not finite.
        OSError: it cannot be written, the disk being full for instance; what was written of it is removed.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"the file to write is {path.name!r}, expected a name that ends in .safetensors")
    bad = [name for name, weight in tensors.items() if not torch.isfinite(weight).all()]
    if bad:
        dtype = tensors[bad[0]].dtype
        raise CheckpointError(
            f"{path.name}: {len(bad)} weight(s) are not finite as {dtype}, first {bad[0]}; nothing was written"
        )
    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=header)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(str(error)) from error
    return path


def _check_kind(path: Path, expected: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; give the path of a .safetensors {expected}")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise CheckpointError(f"{path.name} is empty (0 bytes); download it again")
    if head.startswith(_PICKLES):
        raise CheckpointError(
            f"{path.name} is a pickle (.ckpt, .pt), which can run code when it is opened, so it was not opened; "
            "use the .safetensors version of the model"
        )
    # The first 8 bytes of a real file are a small number.
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head[:8]):
        said = head.decode("latin-1").splitlines()[0].strip()
        raise CheckpointError(
            f"{path.name} is a text, not a model: it begins with {said!r}. A download that failed or a pointer of "
            "git-lfs looks like this; download the model again"
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path.name}: expected a .safetensors file, got {path.suffix or 'no suffix'}")


def _check_for_doubles(path: Path, size: int) -> None:
    """A name given twice: programs disagree about which is meant, so neither is taken."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise CheckpointError(f"{path.name} is damaged: its header names {twice[:200]!r} twice; {_AGAIN}")
        return found

    with open(path, "rb") as file:
        file.seek(8)
        try:
            json.loads(file.read(size), object_pairs_hook=unique)
        except CheckpointError:
            raise
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path.name} is damaged: its header is no JSON ({error}); {_AGAIN}") from error
