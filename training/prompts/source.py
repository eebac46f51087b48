"""The interface of a source of prompts, and the captions of a small world as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from training.distill.rng import generator
from training.prompts.avatars import captions as avatars
from training.prompts.avatars import scene as avatar_scene
from training.prompts.shapes import captions as shapes
from training.prompts.shapes import scene as shape_scene

CountTokens = Callable[[list[str]], list[int]]  # of each prompt, special tokens included


class PromptSource(Protocol):
    """An endless stream of prompts that knows its position.

    counts: totals of the run, across resumes: "given"; "empty", rows without text that were skipped; "over-long",
        prompts past the text encoder's length; "epochs", complete passes over the source.
    """

    counts: dict[str, int]

    def take(self, count: int) -> list[str]:
        """The next `count` prompts.

        Raises:
            ValueError: the source can no longer be read, or a complete pass over it gave no prompt.
        """
        ...

    def one_pass(self) -> Iterator[str]:
        """Every prompt of the source once, in its own order, without changing the position.

        Raises:
            ValueError: the source has no end, or can no longer be read.
        """
        ...

    def describe(self) -> list[str]:
        """How the source is read, one line for each of its parts."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position and the counts, as JSON types."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that was saved with the same source and seed."""
        ...


def new_counts() -> dict[str, int]:
    """The counts of a source that has given nothing yet."""
    return {"given": 0, "empty": 0, "over-long": 0, "epochs": 0}


def _captions(world: str, count: int, rng: torch.Generator) -> list[str]:
    """`count` captions of one of `WORLDS`, never empty."""
    if world == "avatars":
        return [avatars.caption(scene, rng)[0] for scene in avatar_scene.sample_scenes(count, rng)]
    return [shapes.partial_caption(scene, rng)[0] for scene in shape_scene.sample_scenes(count, rng)]


class WorldPrompts:
    """A `PromptSource` of captions, generated at each call from the seed and the number of the call."""

    def __init__(self, world: str, seed: int) -> None:
        self.world, self.seed, self.calls = world, seed, 0
        self.counts = new_counts()

    def take(self, count: int) -> list[str]:
        rng = generator(self.seed, "prompts", self.calls)
        self.calls += 1
        self.counts["given"] += count
        return _captions(self.world, count, rng)

    def one_pass(self) -> Iterator[str]:
        raise ValueError(f'the captions of "{self.world}" are generated without end, so they cannot be listed')

    def describe(self) -> list[str]:
        return [f"captions of the {self.world} world, without end"]

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.counts = state["calls"], dict(state["counts"])
