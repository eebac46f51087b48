"""Captions of the small world as a source of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.distill.rng import generator
from training.prompts.shapes.captions import partial_caption
from training.prompts.shapes.scene import sample_scenes
from training.prompts.source import new_counts


class ShapePrompts:
    """A `PromptSource` of captions, generated at each call from the seed and the number of the call."""

    def __init__(self, seed: int) -> None:
        self.seed, self.calls = seed, 0
        self.counts = new_counts()

    def take(self, count: int) -> list[str]:
        rng = generator(self.seed, "prompts", self.calls)
        self.calls += 1
        self.counts["given"] += count
        return [partial_caption(scene, rng)[0] for scene in sample_scenes(count, rng)]

    def one_pass(self) -> Iterator[str]:
        raise ValueError('the captions of "shapes" are generated without end, so they cannot be listed')

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.counts = state["calls"], dict(state["counts"])
