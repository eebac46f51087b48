"""Endless prompts from a small world, files, folders, globs or data sets on the hub, or a mix of these.

Little is held in memory. The position is a small dict, so a resumed run continues with the same prompts in the same
order as an uninterrupted one. In a distributed run every process reads the same stream and takes its own rows of each
batch. This module imports nothing slow, so that commands can check a recipe first.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from training.config import WORLDS, Prompts, Recipe

if TYPE_CHECKING:
    from training.prompts.source import CountTokens, PromptSource

__all__ = ["different_prompts", "open_prompts", "recipe_prompts"]
_TRIES = 100  # of as many prompts each, to find different ones
HUB_BLOCK = 65_536  # prompts of a hub data set that are shuffled together: reading all of it would be a download


def open_prompts(
    section: Prompts, seed: int, *, count_tokens: CountTokens | None = None, max_tokens: int | None = None
) -> PromptSource:
    """The prompts of a recipe.

    Args:
        count_tokens, max_tokens: with both, prompts of more than `max_tokens` tokens are counted, and left out if
            `section.over_long` is "skip"; with "cut" they are passed on, and the tokenizer cuts them.

    Raises:
        FileNotFoundError: nothing is there; the message lists where it was looked for and what is possible.
        ValueError: files of several kinds, no column of prompts, a broken file, or no usable prompt.
    """

    def opened(source: str, seed: int) -> PromptSource:
        if source in WORLDS:
            from training.prompts.source import WorldPrompts

            return WorldPrompts(source, seed)
        from training.prompts.shards import find_shards
        from training.prompts.stream import StreamedPrompts

        shards = find_shards(source, column=section.column, split=section.split)
        on_hub = not shards[0].size
        return StreamedPrompts(
            shards,
            seed=seed,
            block=section.shuffle_block or (HUB_BLOCK if on_hub else 0),
            count_tokens=count_tokens,
            max_tokens=max_tokens,
            skip_over_long=section.over_long == "skip",
        )

    sources = [opened(source, seed + number) for number, (source, _) in enumerate(section.sources)]
    if len(sources) == 1:
        return sources[0]
    from training.prompts.mix import MixedPrompts

    return MixedPrompts(sources, [weight for _, weight in section.sources], seed)


def different_prompts(section: Prompts, seed: int, count: int) -> list[str]:
    """The first `count` different prompts, or all if the source has fewer.

    Raises:
        FileNotFoundError, ValueError: see `open_prompts`.
    """
    source, found = open_prompts(section, seed), dict[str, None]()
    for _ in range(_TRIES):
        found |= dict.fromkeys(source.take(count))
        if len(found) >= count or source.counts["epochs"]:
            break
    return list(found)[:count]


def recipe_prompts(recipe: Recipe) -> Iterator[str]:
    """Every prompt that a run of `recipe` encodes, the null prompt first, in one pass over the source.

    Raises:
        FileNotFoundError, ValueError: see `open_prompts`; or the source is a small world, which has no end.
    """
    own = ["", *recipe.student.nasa_negatives, *recipe.output.sample_prompts]
    in_order = recipe.prompts.model_copy(update={"shuffle_block": 1})
    return chain(own, open_prompts(in_order, recipe.seed).one_pass())
