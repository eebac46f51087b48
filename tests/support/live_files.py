"""Files for a server's models folders that must be refused, or that NASA cannot steer."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import torch
from safetensors.torch import save_file


def truncated(path: Path, good: Path) -> None:
    """The first third of a valid file, like an interrupted download."""
    content = good.read_bytes()
    path.write_bytes(content[: len(content) // 3])


def foreign(path: Path) -> None:
    """A safetensors file of another program."""
    save_file({"weight": torch.zeros(4)}, path, metadata={"format": "pt"})


def disguised_pickle(path: Path, marker: Path) -> None:
    """A pickle with the extension .safetensors, which creates ``marker`` if it is ever unpickled."""

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(marker), "w")

    path.write_bytes(pickle.dumps(Payload(), protocol=4))


def newer(path: Path, good: Path) -> None:
    """A valid file with a future format version in its header."""
    content = good.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["snoopi.format"] = "99"
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + content[8 + length :])


def tiny_vace(path: Path) -> None:
    """A minimal Wan 2.1 VACE that the host can build: a network that NASA does not support."""
    dim = 256
    shapes = {
        "head.modulation": (1, 2, dim),
        "head.head.weight": (64, dim),
        "blocks.0.ffn.0.weight": (64, dim),
        "patch_embedding.weight": (dim, 16, 1, 2, 2),
        "vace_patch_embedding.weight": (dim, 96, 1, 2, 2),
        "vace_blocks.0.before_proj.weight": (dim, dim),
    }
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
