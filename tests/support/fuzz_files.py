"""Good files for the loader, spoilt in five hundred ways, the same in every run.

A mutant is a small recipe; only when it is written does it become a file. Bodies that are all zeros are holes in it.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MiB = 2**20
_DEEP = 100_000


@dataclass(frozen=True)
class Template:
    """A good file: what it is used as, its header as JSON, its body (a number stands for so many zeros)."""

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

    def write(self, path: Path, *, header: Any = None, raw: bytes | None = None, length: int | None = None,
              body: bytes | int | None = None) -> None:  # fmt: skip
        """With another header (as JSON or as bytes), another length given for it, or another body."""
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
    """`write(path)` makes the file; `nasty` ones are also tried on a real server."""

    name: str
    kind: str
    write: Callable[[Path], None]
    nasty: bool = False


def mutants(templates: list[Template], count: int) -> list[Mutant]:
    """Every fixed trick on every template, then random ones until there are `count`."""
    made = [mutant for template in templates for mutant in _fixed(template)]
    for template in templates:
        made += _config_mutants(template, random.Random(f"config {template.kind}"))
    if len(made) > count:
        raise ValueError(f"{len(made)} fixed mutants, expected at most {count}")
    draw = random.Random("flips")
    while len(made) < count:
        made.append(_flipped(draw.choice(templates), draw.randrange(2**32)))
    return made


def _fixed(template: Template) -> Iterator[Mutant]:
    for source in (_lengths, _cuts, _structures, _offsets_and_shapes, _names, _headers_of_ours, _weights):
        for name, nasty, write in source(template):
            yield Mutant(f"{template.kind}, {source.__name__.strip('_')}: {name}", template.kind, write, nasty)


Tricks = Iterator[tuple[str, bool, Callable[[Path], None]]]


def _lengths(template: Template) -> Tricks:
    """The eight bytes in front lie about the header's length."""
    size = len(template.raw())
    nasty = {2**63, 2**64 - 1, 50 * MiB}
    for length in (0, 1, size - 1, size + 1, size + template.size, size + template.size + 1, *nasty):
        yield str(length), length in nasty, lambda path, n=length: template.write(path, length=n)


def _cuts(template: Template) -> Tricks:
    """Cut off where something begins or ends, and a byte beside it."""
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


def _structures(template: Template) -> Tricks:
    """The header as a whole is something else."""
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
    for name, (content, nasty) in contents.items():
        yield name, nasty, lambda path, raw=content: template.write(path, raw=raw)


def _offsets_and_shapes(template: Template) -> Tricks:
    """One tensor's entry lies."""
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
    for said, lie in lies.items():
        header = copy.deepcopy(template.header)
        header[name].update(lie)
        nasty = said in ("overlap", "shape 2^40", "shape 2^40 of nothing", "1000 dimensions")
        yield said, nasty, lambda path, header=header: template.write(path, header=header)
    order = dict(sorted(template.header.items(), reverse=True))
    yield "unsorted", False, lambda path: template.write(path, header=order)
    for key in ("dtype", "shape", "data_offsets"):
        header = copy.deepcopy(template.header)
        del header[name][key]
        yield f"{key} missing", False, lambda path, header=header: template.write(path, header=header)


def _names(template: Template) -> Tricks:
    """A tensor is gone, comes by another name, or one comes too much."""
    name = template.tensors[len(template.tensors) // 2]
    stem = name.rpartition(".")[0]
    strange = {
        "empty": "", "NUL": f"{stem}.a\0b", "newline": f"{stem}.a\nERROR: all is lost", "ANSI": f"{stem}.\x1b[31mred",
        "long": f"{stem}." + "x" * 100_000, "right to left": f"{stem}.\u202eabc",
        "a huge block": "input_blocks.99999999.0",
        "a huge block of theirs": "model.diffusion_model.input_blocks.99999999.0.weight", "dots": "." * 1000,
        "a path": "../../../etc/passwd", "format": f"{stem}.%s%n{{0}}",
    }  # fmt: skip
    for said, new in strange.items():
        renamed = {new if key == name else key: entry for key, entry in template.header.items()}
        nasty = said in ("newline", "ANSI", "long", "right to left")
        yield f"{said} in place of another", nasty, lambda path, header=renamed: template.write(path, header=header)
        more = {**template.header, new: {"dtype": "F16", "shape": [0], "data_offsets": [template.size] * 2}}
        yield f"{said} besides", False, lambda path, header=more: template.write(path, header=header)


def _headers_of_ours(template: Template) -> Tricks:
    """The entries under `__metadata__`."""
    key = {"lora": "snoopi.lora"}.get(template.kind, "snoopi.model")
    for version in ("", "0", "-1", "1.0", " 1", "１", "²", "9" * 100_000, "1\n", "\x1b[31m", "2"):
        yield (
            f"format {version[:8]!r}",
            False,
            lambda path, v=version: template.write(path, header=_with(template, **{"snoopi.format": v, key: "{}"})),
        )
    texts = {
        "nothing": "", "null": "null", "a list": "[]", "a text": '"x"', "empty": "{}",
        "cut": '{"title": "a', "NaN": '{"latent_scale": NaN}',
        "deep": "[" * _DEEP + "]" * _DEEP, "deep unet": '{"unet": ' + '{"a":' * _DEEP + "1" + "}" * _DEEP + "}",
        "10 MiB": '{"title": "' + "x" * (10 * MiB) + '"}', "a huge number": '{"latent_scale": 1' + "0" * 100_000 + "}",
        "NUL": "\0", "half a surrogate": '{"title": "\\ud800"}',
    }  # fmt: skip
    for said, text in texts.items():
        nasty = said in ("deep", "deep unet", "10 MiB", "a huge number") and template.kind == "own"
        yield (
            f"model {said}",
            nasty,
            lambda path, text=text: template.write(path, header=_with(template, **{"snoopi.format": "1", key: text})),
        )
    for value in ("", "{", "[]", '{"lora_alpha": "x"}', '{"lora_alpha": 1e400}', '{"use_dora": true}', "[" * _DEEP):
        yield (
            f"peft's settings {value[:16]!r}",
            False,
            lambda path, v=value: template.write(path, header=_with(template, lora_adapter_metadata=v)),
        )


def _with(template: Template, **entries: str) -> dict[str, Any]:
    return {**template.header, "__metadata__": {**template.header.get("__metadata__", {}), **entries}}


def _weights(template: Template) -> Tricks:
    """Numbers that are none."""
    for said, pattern in {"NaN": b"\xff\x7f", "infinity": b"\x00\x7c", "the largest": b"\xff\x7b"}.items():
        yield said, False, lambda path, p=pattern: template.write(path, body=p * (template.size // 2))


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "1", "x" * 10_000, "\x1b[31m\n\0",
    [], [[]], [0] * 3, [1] * 50_000, list(range(999, -1, -1)), [10**6] * 2, ["x"] * 4,
    {}, {"a": {"b": {}}}, {"x" * 10_000: 1},
)  # fmt: skip


def _config_mutants(template: Template, draw: random.Random) -> Iterator[Mutant]:
    """Every field of our metadata, and every setting of the parts' configs, becomes something else; and is left out."""
    key = next((key for key in template.header.get("__metadata__", {}) if key in ("snoopi.model", "snoopi.lora")), None)
    if key is None:
        return
    model = json.loads(template.header["__metadata__"][key])

    def write(path: Path, place: tuple[str | int, ...], value: Any, drop: bool) -> None:
        changed = copy.deepcopy(model)
        target = changed
        for step in place[:-1]:
            target = target[step]
        if drop:
            del target[place[-1]]
        else:
            target[place[-1]] = value
        template.write(path, header=_with(template, **{key: json.dumps(changed)}))

    for place in _places(model):
        # Fields of our own twice as often: the parts' settings are many, and mostly read by the same few functions.
        for value in draw.sample(_VALUES, 2 if len(place) == 1 else 1):
            drop = draw.random() < 0.1
            said = "left out" if drop else repr(value)[:20]
            name = f"{template.kind}, metadata: {'.'.join(map(str, place))} {said}"
            yield Mutant(name, template.kind, lambda path, p=place, v=value, d=drop: write(path, p, v, d))


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*place, key))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*place, 0))


def _flipped(template: Template, seed: int) -> Mutant:
    """One to eight random bits, in the header (mostly) or the body."""
    draw = random.Random(seed)
    in_header = draw.random() < 0.8 or isinstance(template.body, int)

    def write(path: Path) -> None:
        content = bytearray(template.raw() if in_header else template.body)
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        if in_header:
            template.write(path, raw=bytes(content))
        else:
            template.write(path, body=bytes(content))

    return Mutant(f"{template.kind}, {'header' if in_header else 'body'} flipped {seed}", template.kind, write)
