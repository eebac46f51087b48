"""Scenes of the world of avatars: a subject and the values of its attributes, which decide every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.prompts.avatars.creatures import MONSTER, PLANET, PLANT
from training.prompts.avatars.people import PERSON
from training.prompts.avatars.tables import Attribute, Role, Subject

SIZE = 64  # pixels along a side
SUBJECTS: dict[str, Subject] = {"person": PERSON, "monster": MONSTER, "plant": PLANT, "planet": PLANET}
SUBJECT_WEIGHTS = {"person": 31.0, "monster": 23.0, "plant": 23.0, "planet": 23.0}
ROLE_SHARE = 0.3  # of the scenes whose subject has roles

# Pairs of values that no training picture has together.
HELD_OUT: dict[str, tuple[dict[str, str], ...]] = {
    "person": (
        {"hair": "pigtails", "eyewear": "glasses"},
        {"hair": "afro", "facial hair": "beard"},
        {"hair": "short", "hair colour": "pink"},
        {"clothes": "yellow", "headwear": "crown"},
    ),
    "monster": ({"shape": "tall", "around": "scarf"}, {"colour": "purple", "eyewear": "sunglasses"}),
    "plant": ({"plant": "cactus", "pot": "purple"}, {"plant": "bush", "headwear": "party hat"}),
    "planet": ({"colour": "green", "around": "ring"}, {"surface": "continents", "headwear": "top hat"}),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One picture: `values` has every attribute that can be seen, and nothing else. `role` only made some likely."""

    subject: str
    values: dict[str, str]
    role: str = ""

    @property
    def held_out(self) -> bool:
        """Whether the scene has a pair of values that no training picture has."""
        return any(pair.items() <= self.values.items() for pair in HELD_OUT[self.subject])


def visible(attribute: Attribute, values: dict[str, str]) -> bool:
    """Whether an attribute can be seen beside the other attributes' values: hair has no colour under a hat."""
    return all(values.get(name) in allowed for name, allowed in attribute.needs.items())


def complete(subject: str, values: dict[str, str], role: str = "") -> Scene:
    """A scene of these values, without those that cannot be seen.

    Raises:
        ValueError: an unknown subject, attribute or value, or an attribute without a value.
    """
    if subject not in SUBJECTS:
        raise ValueError(f"subject {subject!r} is not known; available: {', '.join(SUBJECTS)}")
    table = SUBJECTS[subject].attributes
    if unknown := [name for name in values if name not in table]:
        raise ValueError(f"a {subject} has no {', '.join(unknown)}; available: {', '.join(table)}")
    seen = {name: values[name] for name in table if name in values and visible(table[name], values)}
    for name, attribute in table.items():
        if name not in seen and visible(attribute, values):
            raise ValueError(f"a {subject} needs a value for {name}; available: {', '.join(attribute.values)}")
        if name in seen and seen[name] not in attribute.values:
            raise ValueError(f"{name} {seen[name]!r} is not known; available: {', '.join(attribute.values)}")
    return Scene(subject=subject, values=seen, role=role)


def _pick(weights: dict[str, float], generator: torch.Generator) -> str:
    names = list(weights)
    return names[int(torch.multinomial(torch.tensor([*weights.values()], dtype=torch.float64), 1, generator=generator))]


def sample_scene(generator: torch.Generator, subject: str | None = None, given: dict[str, str] | None = None) -> Scene:
    """A scene at the table's frequencies, held-out combinations included.

    Args:
        subject: one of `SUBJECTS`; None for any.
        given: values that are not drawn.
    """
    subject = subject or _pick(SUBJECT_WEIGHTS, generator)
    about, role = SUBJECTS[subject], None
    if about.roles and not given and float(torch.rand((), generator=generator)) < ROLE_SHARE:
        role = about.roles[int(torch.randint(len(about.roles), (), generator=generator))]
    values = {}
    for name, attribute in about.attributes.items():
        weights = _weights(attribute, name, role)
        values[name] = (given or {}).get(name) or _pick(weights, generator)
    return complete(subject, values, role.word if role else "")


def _weights(attribute: Attribute, name: str, role: Role | None) -> dict[str, float]:
    if role and name in role.likely:
        return role.likely[name]
    return {value: about.weight for value, about in attribute.values.items()}


def sample_scenes(count: int, generator: torch.Generator) -> list[Scene]:
    """`count` scenes for training: none has a held-out combination."""
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = sample_scene(generator)
        if not scene.held_out:
            scenes.append(scene)
    return scenes


def sample_held_out(count: int, generator: torch.Generator) -> list[Scene]:
    """`count` scenes that each have a held-out combination, the subjects and pairs in turn."""
    pairs = [(subject, pair) for subject, found in HELD_OUT.items() for pair in found]
    scenes: list[Scene] = []
    while len(scenes) < count:
        subject, pair = pairs[len(scenes) % len(pairs)]
        scene = sample_scene(generator, subject, pair)
        if scene.held_out:
            scenes.append(scene)
    return scenes
