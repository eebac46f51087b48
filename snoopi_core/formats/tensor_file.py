"""Safetensors files from untrusted sources: checked before anything is read, and written atomically.

A file's header is compared with its size before any weight is read, and weights are mapped into memory, so only the
parts that are used cost memory.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .atomic import replacing

StateDict = dict[str, torch.Tensor]
SUFFIXES = (".safetensors", ".sft")
"""Of files to read, in upper or lower case, as ComfyUI lists them; files are written with the first."""

# Far above any published file (SDXL with text encoders and EMA: 5,000 tensors, header 0.6 MB), and still fast to check.
_MAX_HEADER, _MAX_TENSORS = 2**24, 20_000
_MAX_DIMENSIONS = 8  # many torch functions raise above 64
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_DOWNLOAD_AGAIN = "copy or download it again, and compare its size with the source"


class CheckpointError(ValueError):
    """A file that cannot be used; the message says which file, what is wrong with it and what to do."""

    # The host shows the module before the message; inside the host, the pack's module name is a path.
    __module__ = "snoopi"

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))


def has_suffix(name: str) -> bool:
    """Whether a file's name ends like that of a safetensors file."""
    return name.lower().endswith(SUFFIXES)


def readable(text: str, most: int = 1800) -> str:
    """Make text that quotes a file's name or contents safe to log: one line, no control characters, not too long.

    Long text keeps its beginning, where file names are, and its end, where advice is.
    """
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in _shortened(text, most))
    return _shortened("".join(escaped), most)


def _shortened(text: str, most: int) -> str:
    end = most // 3
    return text if len(text) <= most else f"{text[: most - end]} [...] {text[-end:]}"


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header has been read and checked."""

    path: Path
    metadata: dict[str, str]
    names: tuple[str, ...]

    def read(self, names: Iterable[str] | None = None) -> StateDict:
        """Weights by name (None: all of them), on the CPU and in the file's dtype.

        Raises:
            CheckpointError: the file has changed since, this torch lacks a weight's dtype, or a weight has too many
                dimensions.
        """
        weights = {}
        try:
            with safe_open(self.path, framework="pt") as file:
                for name in self.names if names is None else names:
                    weights[name] = file.get_tensor(name)
        except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path.name}: a weight cannot be read ({error}); {_DOWNLOAD_AGAIN}") from error
        for name, weight in weights.items():
            if weight.ndim > _MAX_DIMENSIONS:
                raise CheckpointError(
                    f"{self.path.name}: {name} has {weight.ndim} dimensions, expected at most {_MAX_DIMENSIONS}; "
                    f"{_DOWNLOAD_AGAIN}"
                )
        return weights


def open_tensor_file(path: str | PathLike[str], expected: str = "checkpoint") -> TensorFile:
    """Read and check the header only.

    Args:
        expected: the kind of file that the caller needs, for messages.

    Raises:
        CheckpointError: no such file, not safetensors (pickles are recognised, but never opened), truncated, a name
            that appears twice, or a header that is too large.
    """
    path = Path(path)
    _check_kind(path, expected)
    try:
        with open(path, "rb") as raw:
            (size,) = struct.unpack("<Q", raw.read(8).ljust(8, b"\0"))
        if size > _MAX_HEADER:
            raise CheckpointError(
                f"{path.name} is damaged or not a model: its header claims {size} bytes, expected at most {_MAX_HEADER}"
            )
        with safe_open(path, framework="pt") as file:  # checks shapes, offsets and the file's size
            metadata, names = file.metadata() or {}, tuple(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged or cut short ({error}); {_DOWNLOAD_AGAIN}") from error
    except RuntimeError as error:  # from torch, if the system cannot map such a large file
        raise CheckpointError(f"{path.name} cannot be opened ({error}); is it really a model of that size?") from error
    if len(names) > _MAX_TENSORS:
        raise CheckpointError(f"{path.name} holds {len(names)} tensors, expected at most {_MAX_TENSORS}")
    _check_names_are_unique(path, size)
    return TensorFile(path, metadata, names)


def save_atomically(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str]) -> Path:
    """Write a safetensors file atomically.

    Raises:
        CheckpointError: a suffix other than `.safetensors`, or a weight that is not finite.
        OSError: it cannot be written, for example because the disk is full; the partial file is removed.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"the file to write is {path.name!r}, expected a name that ends in .safetensors")
    bad = [name for name, weight in tensors.items() if not torch.isfinite(weight).all()]
    if bad:
        dtype = tensors[bad[0]].dtype
        raise CheckpointError(
            f"{path.name}: {len(bad)} weight(s) are not finite as {dtype}, first {bad[0]}; nothing was written"
        )
    with replacing(path, shared=True) as temporary:  # nothing locks the folder of an export
        try:
            save_file(dict(tensors), temporary, metadata=header)
        except SafetensorError as error:  # raised for a full disk
            raise OSError(str(error)) from error
    return path


def _check_kind(path: Path, expected: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; give the path of a .safetensors {expected}")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise CheckpointError(f"{path.name} is empty (0 bytes); download it again")
    # A safetensors header of 640 bytes begins like a pickle too, but the rest of its size is zeros.
    if head.startswith(_PICKLES) and head[3:8] != bytes(5):
        raise CheckpointError(
            f"{path.name} is a pickle (.ckpt, .pt), which can run code when it is opened, so it was not opened; "
            "use the .safetensors version of the model"
        )
    # The first 8 bytes of a real file are a small number.
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head[:8]):
        first_line = head.decode("latin-1").splitlines()[0].strip()
        raise CheckpointError(
            f"{path.name} is a text file, not a model: it begins with {first_line!r}. Probably a failed download or a "
            "git-lfs pointer; download the model again"
        )
    if not has_suffix(path.name):
        raise CheckpointError(f"{path.name}: expected a .safetensors file, got {path.suffix or 'no suffix'}")


def _check_names_are_unique(path: Path, size: int) -> None:
    """Refuse a header with the same name twice: safetensors (0.4.2 to 0.8.0) silently takes the last one."""
    repeated: list[str] = []

    def find_repeated(pairs: list[tuple[str, object]]) -> None:
        repeated.extend(name for name, number in Counter(name for name, _ in pairs).items() if number > 1)

    with open(path, "rb") as file:
        file.seek(8)
        try:
            json.loads(file.read(size), object_pairs_hook=find_repeated)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path.name} is damaged: its header is not valid JSON ({error}); {_DOWNLOAD_AGAIN}"
            ) from error
    if repeated:
        raise CheckpointError(
            f"{path.name} is damaged: its header names {repeated[0][:200]!r} twice; {_DOWNLOAD_AGAIN}"
        )
