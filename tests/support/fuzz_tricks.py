"""Ways to damage a valid model file, each with its name and whether it is also tried on a real server."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz_template import MiB, Template

_DEEP = 100_000

Tricks = Iterator[tuple[str, bool, Callable[[Path], None]]]


def lengths(template: Template) -> Tricks:
    """The first eight bytes state a wrong length of the header."""
    size = len(template.raw())
    nasty = {2**63, 2**64 - 1, 50 * MiB}
    for length in (0, 1, size - 1, size + 1, size + template.size, size + template.size + 1, *nasty):
        yield str(length), length in nasty, lambda path, n=length: template.write(path, length=n)


def cuts(template: Template) -> Tricks:
    """Cut off at boundaries in the file, and one byte before and after them."""
    header = 8 + len(template.raw())
    ends = sorted(entry["data_offsets"][1] for name, entry in template.header.items() if name != "__metadata__")
    places = {0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, header + template.size - 1}
    places |= {header + end for end in (ends[0], ends[len(ends) // 2], ends[-2])}

    def cut(path: Path, place: int) -> None:
        template.write(path)
        with open(path, "rb+") as file:
            file.truncate(place)

    for place in sorted(places):
        yield f"at {place}", place in (0, 8, header), lambda path, n=place: cut(path, n)
    yield "one byte more", False, lambda path: cut(path, header + template.size + 1)


def structures(template: Template) -> Tricks:
    """The whole header is replaced."""
    raw, first = template.raw(), template.tensors[0]
    entry = json.dumps(template.header[first])
    again = b"{" + json.dumps(first).encode() + b": " + entry.encode() + b", " + raw[1:]
    many = {f"t{number}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for number in range(150_000)}
    bomb = b'{"__metadata__": {"a": "' + b"b" * (50 * MiB) + b'"}}'
    deep = b'{"a": ' + b"[" * _DEEP + b"]" * _DEEP + b"}"
    contents: dict[str, tuple[bytes, bool]] = {
        "nothing": (b"", False),
        "an empty object": (b"{}", True),
        "a list": (b"[]", False),
        "null": (b"null", False),
        "NaN": (b'{"a": NaN}', False),
        "deep lists": (deep, True),
        "deep objects": (b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, True),
        "never closed": (b"[" * _DEEP, False),
        "50 MiB of text": (bomb, True),
        "50 MiB of blanks": (raw + b" " * (50 * MiB), False),
        "15 MiB of blanks": (raw + b" " * (15 * MiB), False),
        "a name twice": (again, True),
        "metadata twice": (b'{"__metadata__": {}, ' + raw[1:], False),
        "150,000 tensors": (json.dumps(many).encode(), True),
        "a byte order mark": (b"\xef\xbb\xbf" + raw, False),
        "UTF-16": (raw.decode().encode("utf-16"), False),
        "no UTF-8": (raw.replace(b"weight", b"we\xffght", 1), False),
        "blanks in front": (b"   " + raw, False),
        "rubbish behind": (raw + b"}}", False),
        "half a surrogate": (raw.replace(b"weight", b"\\ud800", 1), True),
        "metadata a list": (json.dumps({**template.header, "__metadata__": ["a"]}).encode(), False),
        "metadata of numbers": (json.dumps({**template.header, "__metadata__": {"snoopi.format": 1}}).encode(), False),
        "metadata nested": (json.dumps({**template.header, "__metadata__": {"snoopi.model": {}}}).encode(), False),
        "metadata null": (json.dumps({**template.header, "__metadata__": None}).encode(), False),
    }
    for label, (content, nasty) in contents.items():
        yield label, nasty, lambda path, raw=content: template.write(path, raw=raw)


def offsets_and_shapes(template: Template) -> Tricks:
    """One tensor's entry is wrong."""
    names = template.tensors
    name, other = names[len(names) // 2], names[0]
    start, end = template.header[name]["data_offsets"]
    lies: dict[str, dict[str, Any]] = {
        "overlap": {"data_offsets": template.header[other]["data_offsets"]},
        "reversed": {"data_offsets": [end, start]},
        "negative": {"data_offsets": [-8, end]},
        "past the end": {"data_offsets": [start, 2**40]},
        "wrapping": {"data_offsets": [start, 2**64 - 1]},
        "10^400": {"data_offsets": [start, 10**400]},
        "fractions": {"data_offsets": [start + 0.5, end]},
        "three": {"data_offsets": [start, end, end]},
        "shape 2^40": {"shape": [2**40]},
        "shape 2^40 of nothing": {"shape": [2**40, 0], "data_offsets": [start, start]},
        "shape 2^32 x 2^32": {"shape": [2**32, 2**32]},
        "shape 0": {"shape": [0]},
        "shape 0, no bytes": {"shape": [0], "data_offsets": [start, start]},
        "shape -1": {"shape": [-1]},
        "shape of a scalar": {"shape": []},
        "shape of fractions": {"shape": [1.5]},
        "shape a text": {"shape": "x"},
        "no shape": {"shape": None},
        "1000 dimensions": {"shape": [1] * 1000 + template.header[name]["shape"]},
        "flat": {"shape": [-(start - end) // 2]},
        **{f"dtype {kind!r}": {"dtype": kind} for kind in ("F7", "", "f16", None, 16, "C64", "F4", "F8_E8M0")},
        **{f"dtype {kind}": {"dtype": kind} for kind in ("BF16", "I16", "U16", "F32", "I64")},
        **{f"dtype {kind}, twice as long": {"dtype": kind, "shape": [end - start]} for kind in ("F8_E4M3", "BOOL")},
    }
    for label, lie in lies.items():
        header = copy.deepcopy(template.header)
        header[name].update(lie)
        nasty = label in ("overlap", "shape 2^40", "shape 2^40 of nothing", "1000 dimensions")
        yield label, nasty, lambda path, header=header: template.write(path, header=header)
    order = dict(sorted(template.header.items(), reverse=True))
    yield "unsorted", False, lambda path: template.write(path, header=order)
    for key in ("dtype", "shape", "data_offsets"):
        header = copy.deepcopy(template.header)
        del header[name][key]
        yield f"{key} missing", False, lambda path, header=header: template.write(path, header=header)


def names(template: Template) -> Tricks:
    """A tensor is missing, renamed, or unexpected."""
    name = template.tensors[len(template.tensors) // 2]
    stem = name.rpartition(".")[0]
    strange = {
        "empty": "", "NUL": f"{stem}.a\0b", "newline": f"{stem}.a\nERROR: all is lost", "ANSI": f"{stem}.\x1b[31mred",
        "long": f"{stem}." + "x" * 100_000, "right to left": f"{stem}.\u202eabc",
        "a huge block": "input_blocks.99999999.0",
        "a huge block of theirs": "model.diffusion_model.input_blocks.99999999.0.weight", "dots": "." * 1000,
        "a path": "../../../etc/passwd", "format": f"{stem}.%s%n{{0}}",
    }  # fmt: skip
    for label, new in strange.items():
        renamed = {new if key == name else key: entry for key, entry in template.header.items()}
        nasty = label in ("newline", "ANSI", "long", "right to left")
        yield f"{label} in place of another", nasty, lambda path, header=renamed: template.write(path, header=header)
        more = {**template.header, new: {"dtype": "F16", "shape": [0], "data_offsets": [template.size] * 2}}
        yield f"{label} besides", False, lambda path, header=more: template.write(path, header=header)


def headers_of_ours(template: Template) -> Tricks:
    """Wrong entries under `__metadata__`."""
    key = {"lora": "snoopi.lora"}.get(template.kind, "snoopi.model")

    def write(path: Path, entries: dict[str, str]) -> None:
        template.write(path, header=template.with_metadata(**entries))

    for version in ("", "0", "-1", "1.0", " 1", "１", "²", "9" * 100_000, "1\n", "\x1b[31m", "2"):
        entries = {"snoopi.format": version, key: "{}"}
        yield f"format {version[:8]!r}", False, lambda path, entries=entries: write(path, entries)
    texts = {
        "nothing": "", "null": "null", "a list": "[]", "a text": '"x"', "empty": "{}",
        "cut": '{"title": "a', "NaN": '{"latent_scale": NaN}',
        "deep": "[" * _DEEP + "]" * _DEEP, "deep unet": '{"unet": ' + '{"a":' * _DEEP + "1" + "}" * _DEEP + "}",
        "10 MiB": '{"title": "' + "x" * (10 * MiB) + '"}', "a huge number": '{"latent_scale": 1' + "0" * 100_000 + "}",
        "NUL": "\0", "half a surrogate": '{"title": "\\ud800"}',
    }  # fmt: skip
    for label, text in texts.items():
        nasty = label in ("deep", "deep unet", "10 MiB", "a huge number") and template.kind == "own"
        entries = {"snoopi.format": "1", key: text}
        yield f"model {label}", nasty, lambda path, entries=entries: write(path, entries)
    for value in ("", "{", "[]", '{"lora_alpha": "x"}', '{"lora_alpha": 1e400}', '{"use_dora": true}', "[" * _DEEP):
        entries = {"lora_adapter_metadata": value}
        yield f"peft's settings {value[:16]!r}", False, lambda path, entries=entries: write(path, entries)


def weights(template: Template) -> Tricks:
    """All weights NaN, infinite, or the largest number."""
    for label, pattern in {"NaN": b"\xff\x7f", "infinity": b"\x00\x7c", "the largest": b"\xff\x7b"}.items():
        yield label, False, lambda path, p=pattern: template.write(path, body=p * (template.size // 2))


ALL = (lengths, cuts, structures, offsets_and_shapes, names, headers_of_ours, weights)
