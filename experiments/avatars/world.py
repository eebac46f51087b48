"""The avatars' world, as studies of negative prompts see it."""

from __future__ import annotations

import hashlib

import torch

from experiments.avatars.measure import caption_set
from experiments.removal import Pair, Seen, Stated, World
from training.evaluate.sets.pairs import PAIRS
from training.prompts.avatars.captions import SUBJECT, phrase
from training.prompts.avatars.draw import render
from training.prompts.avatars.parse import parse
from training.prompts.avatars.rules import MEAN_TOLERANCE, SQUARE_TOLERANCE, WEIGHTS, read
from training.prompts.avatars.scene import SUBJECTS, sample_scenes


def seen(images: torch.Tensor) -> Seen:
    """What the reader reads, the subject too."""
    reading = read(images)
    return Seen(
        rows=[{SUBJECT: scene.subject, **scene.values} for scene in reading.scenes], valid=reading.valid.tolist()
    )


def pair(prompt: str, negative: str) -> Pair:
    """A fixed pair of a prompt, which must name its subject, and a negative that names one thing.

    Raises:
        ValueError: the prompt has no subject, the negative does not name one thing, or the prompt states it.
    """
    stated, unwanted = parse(prompt), parse(negative)
    unwanted.pop(SUBJECT, None)
    if SUBJECT not in stated or len(unwanted) != 1 or unwanted.keys() & stated.keys():
        raise ValueError(f"expected a subject and one thing that it leaves open, got {prompt!r} minus {negative!r}")
    ((attribute, values),) = unwanted.items()
    (group,) = stated[SUBJECT]
    return Pair(
        prompt=prompt, negative=negative, stated=stated, attribute=attribute, values=values, group=group, fixed=True
    )


def _left_open(stated: Stated) -> dict[str, dict[str, str]]:
    (subject,) = stated[SUBJECT]
    return {
        name: {value: phrase(subject, name, value) for value, words in attribute.values.items() if words.phrase}
        for name, attribute in SUBJECTS[subject].attributes.items()
        if name not in stated
    }


def _open_prompts() -> dict[str, Stated]:
    """Subjects, roles, and a subject with one thing more."""
    words = [word for about in SUBJECTS.values() for word in (*about.nouns, *(role.word for role in about.roles))]
    more = (
        "a person with glasses",
        "a person with long hair",
        "a person with a beard",
        "a person with a hat",
        "a red monster",
        "a tall monster",
        "a monster with glasses",
        "a cactus",
        "a flower",
        "a plant with a beard",
        "a blue planet",
        "a planet with stripes",
    )
    prompts = [*(f"an {word}" if word[0] in "aeiou" else f"a {word}" for word in words), *more]
    return {prompt: parse(prompt) for prompt in prompts}


AVATARS = World(
    student="models/snoopi-avatars-student.safetensors",
    teacher="models/snoopi-avatars-teacher.safetensors",
    read=seen,
    reader=f"network {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:16]}, {MEAN_TOLERANCE=}, {SQUARE_TOLERANCE=}",
    captions=lambda count, seed: caption_set(count, seed, "partial"),
    draw=lambda count, seed: render(sample_scenes(count, torch.Generator().manual_seed(seed))),
    open_prompts=_open_prompts(),
    left_open=_left_open,
    group=lambda stated, _: stated[SUBJECT][0],
    fixed=tuple(pair(each.positive, each.negative) for each in PAIRS["avatars"]),
)
