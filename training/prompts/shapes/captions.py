"""Captions for scenes: sentences or tags, in which any attribute may be left out.

A caption is always true: what it names is in the scene. What it leaves out may have any value.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from training.prompts.shapes.scene import ATTRIBUTES, Scene

NULL_PROMPT = ""

_PLACES = {
    "center": "in the center",
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
DROP = 0.35  # probability that a sentence leaves out an attribute
DROP_TAGS = 0.5  # the same for tags, more often: negative prompts are short lists of tags
TAG_SHARE = 0.35
EMPTY_SHARE = 0.1


def phrase(attribute: str, value: str) -> str:
    """The words for one attribute in a tag or a negative prompt, such as "red" or "white background"."""
    if value not in ATTRIBUTES[attribute]:
        raise ValueError(f"{attribute} {value!r} is not known; available: {', '.join(ATTRIBUTES[attribute])}")
    return f"{value} background" if attribute == "background" else value


def sentence(stated: Mapping[str, str]) -> str:
    """A sentence for the stated attributes, such as "a red ring on the left, white background"."""
    words = ["a", stated.get("colour", ""), stated.get("shape", "shape")]
    text = " ".join(word for word in words if word)
    if "position" in stated:
        text += " " + _PLACES[stated["position"]]
    if "background" in stated:
        text += f", {stated['background']} background"
    return text


def tags(stated: Mapping[str, str], generator: torch.Generator) -> str:
    """The stated attributes as tags in random order, such as "left, red, ring"."""
    parts = [phrase(attribute, value) for attribute, value in stated.items()]
    order = torch.randperm(len(parts), generator=generator).tolist()
    return ", ".join(parts[n] for n in order)


def _stated(scene: Scene, drop: float, generator: torch.Generator) -> dict[str, str]:
    keep = torch.rand(len(ATTRIBUTES), generator=generator).tolist()
    return {name: scene.value(name) for name, u in zip(ATTRIBUTES, keep, strict=True) if u >= drop}


def partial_caption(scene: Scene, generator: torch.Generator) -> tuple[str, dict[str, str]]:
    """A caption for a scene, never empty, and the attributes that it states, with their values."""
    as_tags = float(torch.rand((), generator=generator)) < TAG_SHARE
    stated = _stated(scene, DROP_TAGS if as_tags else DROP, generator)
    if as_tags and stated:
        return tags(stated, generator), stated
    return sentence(stated), stated


def full_caption(scene: Scene) -> tuple[str, dict[str, str]]:
    """A sentence that states every attribute, and these attributes with their values."""
    stated = {name: scene.value(name) for name in ATTRIBUTES}
    return sentence(stated), stated


def training_caption(scene: Scene, generator: torch.Generator) -> str:
    """A caption for training a teacher: partial, and empty one time in ten, to train the null prompt for guidance."""
    if float(torch.rand((), generator=generator)) < EMPTY_SHARE:
        return NULL_PROMPT
    return partial_caption(scene, generator)[0]
