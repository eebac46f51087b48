"""Prompts by iteration: (seed, iteration) always gives the same batch, so a resumed run needs no data position."""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.config import Prompts, find_file
from training.noise import generator
from training.shapes.captions import partial_caption
from training.shapes.scene import sample_scenes

PromptBatch = Callable[[int, int], list[str]]  # (iteration, batch size) -> prompts


class PromptSource:
    def __init__(self, batch: PromptBatch) -> None:
        self.batch, self.iteration = batch, 0

    def take(self, count: int) -> list[str]:
        self.iteration += 1
        return self.batch(self.iteration - 1, count)

    def state_dict(self) -> dict:
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict) -> None:
        self.iteration = state["iteration"]


def open_prompts(section: Prompts, seed: int) -> PromptSource:
    return PromptSource(_open(section, seed))


def _open(section: Prompts, seed: int) -> PromptBatch:
    """A function that gives the prompts of an iteration.

    Raises:
        FileNotFoundError: the source is neither "shapes" nor a file.
        ValueError: the file is not UTF-8 text, or has no prompt in it.
    """
    if section.source == "shapes":
        return lambda iteration, size: _shape_captions(size, generator(seed, "prompts", iteration))
    path = find_file(section.source)
    if not path.is_file():
        raise FileNotFoundError(
            f'no prompts at {section.source!r}: expected "shapes" or a .txt file, one prompt a line'
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts {path.name} is not UTF-8 text: {error}") from error
    prompts = [line for line in lines if line]
    if not prompts:
        raise ValueError(f"prompts {path.name} holds no prompt; expected one a line")
    return lambda iteration, size: [prompts[i] for i in _shuffled(len(prompts), iteration * size, size, seed)]


def _shape_captions(size: int, rng: torch.Generator) -> list[str]:
    return [partial_caption(scene, rng)[0] for scene in sample_scenes(size, rng)]


def _shuffled(total: int, start: int, size: int, seed: int) -> list[int]:
    """Positions start .. start+size-1 of an endless walk in which every epoch is a new permutation of range(total)."""
    found: list[int] = []
    while len(found) < size:
        epoch, offset = divmod(start + len(found), total)
        order = torch.randperm(total, generator=generator(seed, "epoch", epoch))
        found += order[offset : offset + size - len(found)].tolist()
    return found
