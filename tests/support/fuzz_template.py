"""A valid model file as header and body, and files that differ from it in one of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MiB = 2**20


@dataclass(frozen=True)
class Template:
    """A valid file: its kind, its header as JSON, and its body or the number of zeros in it."""

    kind: str  # "own", "foreign" or "lora"
    header: dict[str, Any]
    body: bytes | int

    @classmethod
    def read(cls, path: Path, kind: str, *, zeros: bool = False) -> Template:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        body = content[8 + length :]
        return cls(kind, json.loads(content[8 : 8 + length]), len(body) if zeros else body)

    @property
    def size(self) -> int:
        return self.body if isinstance(self.body, int) else len(self.body)

    @property
    def tensors(self) -> list[str]:
        return [name for name in self.header if name != "__metadata__"]

    def raw(self) -> bytes:
        return json.dumps(self.header).encode()

    def with_metadata(self, **entries: str) -> dict[str, Any]:
        """The header with these entries under `__metadata__`."""
        return {**self.header, "__metadata__": {**self.header.get("__metadata__", {}), **entries}}

    def write(self, path: Path, *, header: Any = None, raw: bytes | None = None, length: int | None = None,
              body: bytes | int | None = None) -> None:  # fmt: skip
        """Write the file with another header (JSON or bytes), another stated header length, or another body."""
        if raw is None:
            raw = json.dumps(self.header if header is None else header).encode()
        body = self.body if body is None else body
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(raw) if length is None else length) + raw)
            if isinstance(body, int):
                file.truncate(8 + len(raw) + body)
            else:
                file.write(body)


@dataclass(frozen=True)
class Mutant:
    """`write(path)` creates the file; `nasty` ones are also tried on a real server."""

    name: str
    kind: str
    write: Callable[[Path], None]
    nasty: bool = False
