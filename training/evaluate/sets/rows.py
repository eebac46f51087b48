"""The list of images to make: each prompt `count` times, each image with its own seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from training.config import WORLDS, Prompts
from training.evaluate.sets.manifest import Row
from training.evaluate.sets.pairs import Pair

WORLD_COUNT = 100  # number of captions to use from a small world, which has no end


def seed_of(base: int, prompt: str, number: int) -> int:
    """The noise seed of image `number` of a prompt, independent of the list, batch, process and method."""
    digest = hashlib.sha256(repr((base, prompt, number)).encode()).digest()
    return int.from_bytes(digest[:7], "little")


def rows_of_prompts(section: Prompts, *, count: int, limit: int | None, negative: str, seed: int) -> tuple[Row, ...]:
    """`count` images of each prompt of a source, in its order.

    Args:
        limit: use at most this many prompts of each file.
        negative: the negative prompt of all images.

    Raises:
        FileNotFoundError, ValueError: see `training.prompts.open_prompts`.
    """
    wanted = ((prompt, negative, group, None) for group, prompt in _prompts(section, limit, seed))
    return tuple(_rows(wanted, count, seed))


def rows_of_list(prompts: Iterable[str], *, seed: int) -> tuple[Row, ...]:
    """One image of each prompt, without a negative."""
    return tuple(_rows(((prompt, "", "", None) for prompt in prompts), 1, seed))


def rows_of_pairs(pairs: tuple[Pair, ...], *, count: int, seed: int) -> tuple[Row, ...]:
    """`count` images of each pair; pairs with the same prompt share their noise."""
    rows: list[Row] = []
    for number, pair in enumerate(pairs):
        rows += _rows([(pair.positive, pair.negative, "", number)], count, seed, first=len(rows))
    return tuple(rows)


def _rows(wanted: Iterable[tuple[str, str, str, int | None]], count: int, seed: int, first: int = 0) -> Iterator[Row]:
    drawn: Counter[str] = Counter()  # a prompt that is listed again gets different noise
    n = first
    for prompt, negative, group, pair in wanted:
        for number in range(drawn[prompt], drawn[prompt] + count):
            yield Row(
                file=f"{n:06d}.png",
                prompt=prompt,
                negative=negative or None,
                number=number,
                seed=seed_of(seed, prompt, number),
                group=group,
                pair=pair,
            )
            n += 1
        drawn[prompt] += count


def _prompts(section: Prompts, limit: int | None, seed: int) -> Iterator[tuple[str, str]]:
    """(group, prompt); the group is the name of the file if there are several."""
    # imported here: takes two seconds
    from training.prompts import open_prompts
    from training.prompts.shards import find_shards
    from training.prompts.stream import StreamedPrompts

    if section.source in WORLDS:
        yield from (("", prompt) for prompt in open_prompts(section, seed).take(limit or WORLD_COUNT))
        return
    shards = find_shards(section.source, column=section.column, split=section.split)
    for shard in shards:
        group = Path(shard.name).stem if len(shards) > 1 else ""
        for prompt in islice(StreamedPrompts([shard], seed=0, block=1).one_pass(), limit):
            yield group, prompt
