"""Endless prompts from the small world of shapes, files, folders, globs or data sets on the hub.

Nothing is copied, and little is held in memory. The position is a small dict, so a resumed run continues with the same
prompts in the same order as an uninterrupted one. In a distributed run every process reads the same stream and takes
its own rows of each batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from training.config import Prompts, Recipe
from training.prompts.source import CountTokens, PromptSource, ShapePrompts

__all__ = ["CountTokens", "PromptSource", "open_prompts", "recipe_prompts"]


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
    if section.source == "shapes":
        return ShapePrompts(seed)
    # Imported here because they take two seconds, and shapes need neither.
    from training.prompts.shards import find_shards
    from training.prompts.stream import StreamedPrompts

    return StreamedPrompts(
        find_shards(section),
        seed=seed,
        block=section.shuffle_block,
        count_tokens=count_tokens,
        max_tokens=max_tokens,
        skip_over_long=section.over_long == "skip",
    )


def recipe_prompts(recipe: Recipe) -> Iterator[str]:
    """Every prompt that a run of `recipe` encodes, the null prompt first, in one pass over the source.

    Raises:
        FileNotFoundError, ValueError: see `open_prompts`; or the source is "shapes", which has no end.
    """
    own = ["", *recipe.student.nasa_negatives, *recipe.output.sample_prompts]
    return chain(own, open_prompts(recipe.prompts, recipe.seed).one_pass())
