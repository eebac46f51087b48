"""What negative prompts remove in a small world, and what else they change. Independent of models.

A model is a callable `generate(prompts, seeds, negative=None)` that returns images (B, 3, 64, 64) in [0, 1], one per
prompt and seed. Shares are in [0, 1], entropies in bits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any, Protocol

import torch

# What a text states: for each attribute the values that make it true.
Stated = dict[str, tuple[str, ...]]


class Generate(Protocol):
    """Makes one image per prompt and seed, steered away from `negative` if it is given."""

    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was read in B pictures: for each the value of every attribute that it has, and whether it is a clean one."""

    rows: list[dict[str, str]]
    valid: list[bool]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt, and a negative that names a value (or one of several) of an attribute that the prompt leaves open.

    group: the part of the world that the pair belongs to. fixed: whether the pair is the same for every model. share:
    else, how many of the pictures that it was found in show the unwanted value.
    """

    prompt: str
    negative: str
    stated: Stated
    attribute: str
    values: tuple[str, ...]
    group: str
    fixed: bool = False
    share: float = 0.0

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Pair:
        """A pair as it is read from a file of results."""
        known = {field.name: row[field.name] for field in fields(cls)}
        stated = {name: tuple(values) for name, values in row["stated"].items()}
        return cls(**known | {"stated": stated, "values": tuple(row["values"])})


@dataclass(frozen=True, kw_only=True)
class World:
    """A world of small pictures that rules can read.

    student, teacher: the shipped files.
    read: images (B, 3, 64, 64) in [0, 1] -> what is in them.
    reader: names what reads them, so that results of another reader are not continued.
    captions: (count, seed) -> captions that leave attributes open, and what each states.
    draw: (count, seed) -> the world's own pictures, (count, 3, 64, 64).
    open_prompts: texts that leave much open, with what they state. Modal pairs are looked for among these.
    left_open: what a text states -> the attributes that it leaves open, each with the words for its values.
    group: (stated, attribute) -> the part of the world. Each has modal pairs of its own.
    fixed: pairs that are the same for every model.
    """

    student: str
    teacher: str
    read: Callable[[torch.Tensor], Seen]
    reader: str
    captions: Callable[[int, int], tuple[list[str], list[Stated]]]
    draw: Callable[[int, int], torch.Tensor]
    open_prompts: dict[str, Stated]
    left_open: Callable[[Stated], dict[str, dict[str, str]]]
    group: Callable[[Stated, str], str]
    fixed: tuple[Pair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Effect of a negative, as shares of the images.

    `absent`: the unwanted value is not drawn; `kept`: stated attributes are right; `clean`: both, in a valid image.
    """

    absent: float
    kept: float
    valid: float
    clean: float


SHARES = tuple(field.name for field in fields(Removal))


def entropy(values: list[str]) -> float:
    """Entropy in bits of the observed shares; 0 for an empty list."""
    counts = Counter(values)
    return sum(n / len(values) * math.log2(len(values) / n) for n in counts.values())


def shows(row: dict[str, str], stated: Stated) -> bool:
    """Whether a picture has everything that is stated."""
    return all(row.get(name) in values for name, values in stated.items())


def verdicts(seen: Seen, pair: Pair) -> dict[str, list[bool]]:
    """Each of `SHARES`, picture by picture."""
    absent = [row.get(pair.attribute) not in pair.values for row in seen.rows]
    kept = [shows(row, pair.stated) for row in seen.rows]
    clean = [all(three) for three in zip(absent, kept, seen.valid, strict=True)]
    return {"absent": absent, "kept": kept, "valid": seen.valid, "clean": clean}


def removal_table(
    world: World, generate: Generate, pairs: list[Pair], *, steer: bool = True, count: int = 100, seed: int = 90_000
) -> list[Removal]:
    """One row per pair: `count` images with the same seeds for every pair; `steer=False` leaves the negative out."""
    seeds = list(range(seed, seed + count))
    rows = []
    for pair in pairs:
        images = generate([pair.prompt] * count, seeds, pair.negative if steer else None)
        judged = verdicts(world.read(images), pair)
        rows.append(Removal(**{name: fmean(judged[name]) for name in SHARES}))
    return rows


def mean_removal(rows: list[Removal]) -> Removal:
    """Mean over the pairs."""
    return Removal(**{name: fmean(getattr(row, name) for row in rows) for name in SHARES})


def open_entropy(world: World, seen: Seen, stated: Stated, besides: str = "") -> float:
    """The mean entropy of the attributes that a prompt leaves open, but for one, over its images; 0 if none is."""
    names = [name for name in world.left_open(stated) if name != besides]
    bits = [entropy([row[name] for row in seen.rows if name in row]) for name in names]
    return fmean(bits) if bits else 0.0


def modal_pairs(
    world: World, generate: Generate, *, per_group: int = 4, count: int = 50, seed: int = 50_000
) -> list[Pair]:
    """In each part of the world, the open prompts of which the model favours one value most, that value the negative.

    Such negatives are informative: they name what the model would draw. Equally favoured values are ordered by how many
    of their images are valid, since a prompt that is drawn badly anyway shows nothing. The pairs of a part are about
    different attributes if possible, else they have different negatives if possible. Measure with other seeds than
    these.
    """
    seeds = list(range(seed, seed + count))
    prompts = [prompt for prompt in world.open_prompts for _ in seeds]
    seen = world.read(generate(prompts, seeds * len(world.open_prompts)))
    found: dict[str, list[tuple[float, float, Pair]]] = {}
    for number, (prompt, stated) in enumerate(world.open_prompts.items()):
        part = slice(number * count, (number + 1) * count)
        clear = fmean(seen.valid[part])
        for attribute, words in world.left_open(stated).items():
            values = [row[attribute] for row in seen.rows[part] if words.get(row.get(attribute, ""))]
            for value, times in Counter(values).most_common(1):
                pair = Pair(
                    prompt=prompt,
                    negative=words[value],
                    stated=stated,
                    attribute=attribute,
                    values=(value,),
                    group=world.group(stated, attribute),
                    share=times / count,
                )
                found.setdefault(pair.group, []).append((-pair.share, -clear, pair))
    pairs = []
    for rows in found.values():
        rows.sort(key=lambda row: row[:2])
        pairs += _most_different([pair for *_, pair in rows], per_group)
    return pairs


def _most_different(pairs: list[Pair], count: int) -> list[Pair]:
    """The first `count` pairs about different attributes; if there are too few, with different negatives; else any."""
    chosen: list[Pair] = []
    for key in ("attribute", "negative", "prompt"):
        for pair in pairs:
            repeated = key != "prompt" and any(getattr(pair, key) == getattr(other, key) for other in chosen)
            if len(chosen) < count and pair not in chosen and not repeated:
                chosen.append(pair)
    return chosen
