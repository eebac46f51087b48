"""Measures of quality and removal in the shapes world, independent of models.

A model is a callable `generate(prompts, seeds, negative=None)` that returns images (B, 3, 64, 64) in [0, 1], one per
prompt and seed. Shares are in [0, 1], entropies in bits.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Protocol

import torch

from training.prompts.shapes.captions import full_caption, partial_caption, phrase, sentence
from training.prompts.shapes.rules import Reading, read
from training.prompts.shapes.scene import ATTRIBUTES, sample_scenes


class Generate(Protocol):
    """Makes one image per prompt and seed, steered away from `negative` if it is given."""

    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well images follow captions.

    `per_attribute`: share of the images whose caption states it that show it; `stated`: share with all stated
    attributes right; `entropy`: of an attribute over the images whose caption does not state it.
    """

    count: int
    per_attribute: dict[str, float]
    stated: float
    valid: float
    entropy: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt that does not state `attribute`, and as the negative the value that the model draws most often."""

    prompt: str
    stated: dict[str, str]
    attribute: str
    value: str
    share: float

    @property
    def negative(self) -> str:
        return phrase(self.attribute, self.value)


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


def caption_set(count: int, seed: int, kind: str) -> tuple[list[str], list[dict[str, str]]]:
    """`count` captions and the attributes that each states.

    Raises:
        ValueError: `kind` is not "full" or "partial".
    """
    generator = torch.Generator().manual_seed(seed)
    scenes = sample_scenes(count, generator)
    if kind == "full":
        made = [full_caption(scene) for scene in scenes]
    elif kind == "partial":
        made = [partial_caption(scene, generator) for scene in scenes]
    else:
        raise ValueError(f"unknown kind {kind!r}; available: full, partial")
    return [caption for caption, _ in made], [stated for _, stated in made]


def entropy(values: list[str]) -> float:
    """Entropy in bits of the observed shares; 0 for an empty list."""
    counts = Counter(values)
    return -sum(n / len(values) * math.log2(n / len(values)) for n in counts.values())


def _right(reading: Reading, row: int, stated: dict[str, str]) -> bool:
    return all(reading.values[name][row] == value for name, value in stated.items())


def accuracy(images: torch.Tensor, stated: list[dict[str, str]]) -> Accuracy:
    """Compare images (B, 3, 64, 64) with what their captions state (B dicts)."""
    reading = read(images)
    rows = range(len(stated))
    per_attribute, open_entropy = {}, {}
    for name in ATTRIBUTES:
        asked = [n for n in rows if name in stated[n]]
        left_open = [reading.values[name][n] for n in rows if name not in stated[n]]
        per_attribute[name] = fmean(reading.values[name][n] == stated[n][name] for n in asked) if asked else math.nan
        open_entropy[name] = entropy(left_open) if left_open else math.nan
    return Accuracy(
        count=len(stated),
        per_attribute=per_attribute,
        stated=fmean(_right(reading, n, stated[n]) for n in rows),
        valid=float(reading.valid.float().mean()),
        entropy=open_entropy,
    )


def prompt_entropy(generate: Generate, stated: list[dict[str, str]], *, count: int, seed: int) -> dict[str, float]:
    """Entropy of each attribute over `count` images of one prompt, mean over the prompts that do not state it."""
    return {name: fmean(bits) for name, bits in prompt_entropies(generate, stated, count=count, seed=seed).items()}


def prompt_entropies(
    generate: Generate, stated: list[dict[str, str]], *, count: int, seed: int
) -> dict[str, list[float]]:
    """Entropy of each attribute over `count` images of one prompt, for each prompt that does not state it."""
    found: dict[str, list[float]] = {name: [] for name in ATTRIBUTES}
    for each in stated:
        values = read(generate([sentence(each)] * count, list(range(seed, seed + count)))).values
        for name in ATTRIBUTES:
            if name not in each:
                found[name].append(entropy(values[name]))
    return found


def modal_pairs(generate: Generate, *, per_attribute: int = 4, count: int = 50, seed: int = 50_000) -> list[Pair]:
    """For each attribute, the prompts (stating one other attribute) where the model favours one value most.

    Such negatives are informative: they name what the model would draw. Equally favoured values are ordered by how many
    of their images are valid, since a prompt that is drawn badly anyway shows nothing. The pairs of an attribute have
    different negatives if possible. Measure with other seeds than these.
    """
    singles = [{name: value} for name, values in ATTRIBUTES.items() for value in values]
    prompts = [sentence(stated) for stated in singles]
    seeds = list(range(seed, seed + count))
    images = generate([prompt for prompt in prompts for _ in seeds], seeds * len(prompts))
    reading = read(images)
    values, clear = reading.values, reading.valid.float().view(len(prompts), count).mean(dim=1).tolist()
    pairs = []
    for attribute in ATTRIBUTES:
        found: list[tuple[Pair, float]] = []
        for n, stated in enumerate(singles):
            if attribute in stated:
                continue
            value, times = Counter(values[attribute][n * count : (n + 1) * count]).most_common(1)[0]
            pair = Pair(prompt=prompts[n], stated=stated, attribute=attribute, value=value, share=times / count)
            found.append((pair, clear[n]))
        found.sort(key=lambda row: (-row[0].share, -row[1]))
        chosen: list[Pair] = []
        for distinct in (True, False):
            for pair, _ in found:
                repeated = any(pair.value == other.value for other in chosen)
                if len(chosen) < per_attribute and pair not in chosen and not (distinct and repeated):
                    chosen.append(pair)
        pairs += chosen
    return pairs


def removal(images: torch.Tensor, pair: Pair) -> Removal:
    """Judge images (B, 3, 64, 64) made for one pair."""
    reading = read(images)
    rows = range(len(images))
    absent = [reading.values[pair.attribute][n] != pair.value for n in rows]
    kept = [_right(reading, n, pair.stated) for n in rows]
    clean = [absent[n] and kept[n] and bool(reading.valid[n]) for n in rows]
    return Removal(
        absent=fmean(absent), kept=fmean(kept), valid=float(reading.valid.float().mean()), clean=fmean(clean)
    )


def removal_table(
    generate: Generate, pairs: list[Pair], *, steer: bool = True, count: int = 100, seed: int = 90_000
) -> list[Removal]:
    """One row per pair: `count` images with the same seeds for every pair; `steer=False` leaves the negative out."""
    seeds = list(range(seed, seed + count))
    return [removal(generate([pair.prompt] * count, seeds, pair.negative if steer else None), pair) for pair in pairs]


def mean_removal(rows: list[Removal]) -> Removal:
    """Mean over the pairs."""
    return Removal(**{name: fmean(getattr(row, name) for row in rows) for name in SHARES})
