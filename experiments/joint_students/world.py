"""What a student learns from: the avatars' models, captions and judge.

Dimensions: B pictures, latents (B, *LATENT), which are the students' image tokens: 64, of 16 numbers each.
"""

from __future__ import annotations

import torch

from experiments.avatars.world import AVATARS
from experiments.sampling import FewSteps, ManySteps, one_step
from training.models.backbone import Backbone
from training.models.clip_tokenizer import clip_tokenizer
from training.models.loading import load_backbone
from training.prompts.avatars.captions import training_caption
from training.prompts.avatars.scene import sample_scenes

LATENT = (16, 8, 8)
TEXT = 48
"""Width of the text encoder's states."""
TOKENS = 16
"""Text tokens of a padded prompt. The text encoder is causal, so these are the first of its 77 states."""
SUBJECTS = ("a person", "a monster", "a plant", "a planet", "")
"""Prompts that leave all else open."""


def load(source: str) -> Backbone:
    """The bundled teacher, or student."""
    return load_backbone(AVATARS.teacher if source == "teacher" else AVATARS.student)


def captions(count: int, rng: torch.Generator) -> list[str]:
    """As in training, but of at most TOKENS tokens, which nine in ten are."""
    tokenizer, found = clip_tokenizer(), []
    while len(found) < count:
        several = [training_caption(scene, rng) for scene in sample_scenes(count, rng)]
        found += [text for text in several if len(tokenizer(text).input_ids) <= TOKENS]
    return found[:count]


def sampler(model: Backbone, source: str) -> ManySteps | FewSteps:
    """Makes pictures as the source of pairs does: the teacher in 20 steps at cfg 3, the student in one."""
    return ManySteps(model=model) if source == "teacher" else one_step(model, "none")


@torch.no_grad()
def text_states(model: Backbone, prompts: list[str]) -> torch.Tensor:
    """The padded states of prompts, (B, TOKENS, TEXT).

    Raises:
        ValueError: a prompt has more tokens.
    """
    if (most := max(model.count_tokens(prompts))) > TOKENS:
        raise ValueError(f"a prompt has {most} tokens, expected at most {TOKENS}")
    return torch.cat([model.encode(prompts[n : n + 50]).states[:, :TOKENS] for n in range(0, len(prompts), 50)])
