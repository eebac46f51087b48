"""Good files for the loader, damaged in seven hundred ways, the same in every run.

A mutant is a small recipe and becomes a file only when it is written. Bodies that are all zeros are holes in the file.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzz_tricks
from fuzz_template import MiB, Mutant, Template

__all__ = ["MiB", "Mutant", "Template", "mutants"]


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
    for source in fuzz_tricks.ALL:
        for name, nasty, write in source(template):
            yield Mutant(f"{template.kind}, {source.__name__}: {name}", template.kind, write, nasty)


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "1", "x" * 10_000, "\x1b[31m\n\0",
    [], [[]], [0] * 3, [1] * 50_000, list(range(999, -1, -1)), [10**6] * 2, ["x"] * 4,
    {}, {"a": {"b": {}}}, {"x" * 10_000: 1},
)  # fmt: skip


def _config_mutants(template: Template, draw: random.Random) -> Iterator[Mutant]:
    """Replace or remove every field of our metadata and every setting of the parts' configs."""
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
        template.write(path, header=template.with_metadata(**{key: json.dumps(changed)}))

    for place in _places(model):
        # Our own fields get two values; the parts' many settings get one, since a few functions read most of them.
        for value in draw.sample(_VALUES, 2 if len(place) == 1 else 1):
            drop = draw.random() < 0.1
            new = "left out" if drop else repr(value)[:20]
            name = f"{template.kind}, metadata: {'.'.join(map(str, place))} {new}"
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
