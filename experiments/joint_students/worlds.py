"""What a student learns from: for each world of pictures, the model that makes pairs, its captions and its judge.

Dimensions: B pictures, C x 8 x 8 latents of the model, C / 4 x 16 x 16 the same numbers as the students see them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from experiments import removal
from experiments.sampling import FewSteps, ManySteps, one_step
from experiments.shapes.world import SHAPES
from training.models.backbone import Backbone
from training.models.loading import load_backbone
from training.prompts.shapes.captions import training_caption
from training.prompts.shapes.scene import sample_scenes

TOKENS = 16
"""Text tokens of a padded prompt. The text encoder is causal, so these are the first of its 77 states."""


@dataclass(frozen=True, kw_only=True)
class World:
    """One world.

    rules: its models, how its pictures are read, and its pairs of prompts and negatives.
    latent: C, h and w of its models.
    text: width of its text encoder's states.
    captions: (count, random numbers) -> captions as in training.
    """

    rules: removal.World
    latent: tuple[int, int, int]
    text: int
    captions: Callable[[int, torch.Generator], list[str]]

    def load(self, source: str) -> Backbone:
        return load_backbone(self.rules.teacher if source == "teacher" else self.rules.student)


def _captions(count: int, rng: torch.Generator) -> list[str]:
    return [training_caption(scene, rng) for scene in sample_scenes(count, rng)]


WORLDS = {"shapes": World(rules=SHAPES, latent=(4, 8, 8), text=64, captions=_captions)}


def sampler(model: Backbone, source: str) -> ManySteps | FewSteps:
    """Makes pictures as the source of pairs does: the teacher in 20 steps at cfg 3, the student in one."""
    return ManySteps(model=model) if source == "teacher" else one_step(model, "none")


def as_seen(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, 8, 8) -> (B, C / 4, 16, 16): 256 image tokens, each with a quarter of a place's numbers."""
    return functional.pixel_shuffle(latents, 2)


def as_made(latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `as_seen`."""
    return functional.pixel_unshuffle(latents, 2)


@torch.no_grad()
def text_states(model: Backbone, prompts: list[str]) -> torch.Tensor:
    """The padded states of prompts, (B, TOKENS, E).

    Raises:
        ValueError: a prompt has more tokens.
    """
    if (most := max(model.count_tokens(prompts))) > TOKENS:
        raise ValueError(f"a prompt has {most} tokens, expected at most {TOKENS}")
    return torch.cat([model.encode(prompts[n : n + 50]).states[:, :TOKENS] for n in range(0, len(prompts), 50)])
