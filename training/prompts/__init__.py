"""Prompts without end, from anywhere: the small world, files, folders, globs, hub data sets.

Nothing is copied and little is held in memory. The position is a small dict, so that a resumed run goes on with the
very prompts, in the very order, that an uninterrupted one would have had. Every process of a distributed run reads the
same stream and takes its own rows of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol

import torch

from training.config import Prompts, Recipe
from training.distill.rng import generator
from training.prompts.shapes.captions import partial_caption
from training.prompts.shapes.scene import sample_scenes

CountTokens = Callable[[list[str]], list[int]]  # of each prompt, special tokens included


class PromptSource(Protocol):
    """An endless stream of prompts that knows its position.

    counts: of the run so far, also across resumes: "given"; "empty", skipped for holding no text, as far as read;
        "over-long", past the text encoder's length; "epochs", whole passes over the source.
    """

    counts: dict[str, int]

    def take(self, count: int) -> list[str]:
        """The next `count` prompts.

        Raises:
            ValueError: the source has become unreadable, or a whole pass over it gave no prompt.
        """
        ...

    def once(self) -> Iterator[str]:
        """Every prompt of the source, one pass in its own order; leaves the stream's position alone."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position and the counts, ready for JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that was saved by the same source and seed, in this process or another."""
        ...


def open_prompts(
    section: Prompts, seed: int, *, count_tokens: CountTokens | None = None, max_tokens: int | None = None
) -> PromptSource:
    """The prompts of a recipe.

    Args:
        count_tokens, max_tokens: with both, prompts of more than `max_tokens` tokens are counted, and with
            `section.over_long` = "skip" left out; "cut" passes them on, for the tokenizer to cut.

    Raises:
        FileNotFoundError: nothing is there; says what was looked for and what is possible.
        ValueError: files of several kinds, no column of prompts, a broken file, or no usable prompt at all.
    """
    if section.source == "shapes":
        return ShapePrompts(seed)
    # Imported here: the small world needs neither, and they take two seconds.
    from training.prompts.sources import find_shards
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
    """Every prompt that a run of `recipe` encodes, the null prompt first: one pass over the source.

    Raises:
        FileNotFoundError, ValueError: see `open_prompts`; or they are the small world's, which have no end.
    """
    own = ["", *recipe.student.nasa_negatives, *recipe.output.sample_prompts]
    return chain(own, open_prompts(recipe.prompts, recipe.seed).once())


class ShapePrompts:
    """Captions of the small world, made anew at every call from (seed, number of the call)."""

    def __init__(self, seed: int) -> None:
        self.seed, self.calls = seed, 0
        self.counts = {"given": 0, "empty": 0, "over-long": 0, "epochs": 0}

    def take(self, count: int) -> list[str]:
        rng = generator(self.seed, "prompts", self.calls)
        self.calls += 1
        self.counts["given"] += count
        return _shape_captions(count, rng)

    def once(self) -> Iterator[str]:
        raise ValueError('the captions of "shapes" are made as they are needed, without end; there is no list of them')

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.counts = state["calls"], dict(state["counts"])


def _shape_captions(size: int, rng: torch.Generator) -> list[str]:
    return [partial_caption(scene, rng)[0] for scene in sample_scenes(size, rng)]
