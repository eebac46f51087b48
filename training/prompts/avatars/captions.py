"""Captions for scenes: sentences or tags, in which any attribute may be left out.

A caption is always true: what it names is in the picture. What it leaves out may have any value, and so may what has no
words, as a face without a beard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from training.prompts.avatars.scene import SUBJECTS, Scene

NULL_PROMPT = ""
SUBJECT = "subject"  # the key of the subject among what a caption states

# What a caption states: for each attribute the values that make it true, such as {"headwear": ("top hat", "party hat")}
# for a hat.
Stated = dict[str, tuple[str, ...]]

DROP = 0.4  # probability that a sentence leaves out an attribute
DROP_TAGS = 0.6  # the same for tags, more often: negative prompts are short lists of tags
NO_SUBJECT = 0.5  # probability that tags leave out the subject
ONE_TAG = 0.4  # share of the tag captions that name one attribute alone, as negative prompts do
TAG_SHARE = 0.3
SHORT_SHARE = 0.3  # of the captions, sentences as short as what people write: the subject, and at most one thing
ALONE = 0.5  # of the short ones, the share that names the subject alone
EMPTY_SHARE = 0.1
GROUP_SHARE = 0.5
ROLE_WORD_SHARE = 0.8  # of a role's scenes, the share that is called by the role

# Everyday words for several values of an attribute, {attribute: {phrase: values}}: nobody who asks for no glasses is
# content with sunglasses.
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "eyewear": {"glasses": ("glasses", "sunglasses")},
    "headwear": {"a hat": ("top hat", "party hat")},
}
_COLOUR = "{}"


def phrase(subject: str, attribute: str, value: str) -> str:
    """The words for one attribute in a tag or a negative prompt, such as "a beard".

    Raises:
        ValueError: the value is not known, or has no words.
    """
    values = SUBJECTS[subject].attributes[attribute].values
    named = [name for name, about in values.items() if about.phrase]
    if value not in named:
        raise ValueError(f"{attribute} {value!r} has no words; available: {', '.join(named)}")
    return _clean(values[value].phrase.replace(_COLOUR, ""))


def _clean(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def _flip(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability


def _shuffled(items: list[str], generator: torch.Generator) -> list[str]:
    return [items[n] for n in torch.randperm(len(items), generator=generator).tolist()]


def _choose(scene: Scene, drop: float, generator: torch.Generator) -> tuple[dict[str, str], Stated]:
    """The phrases of the attributes that a caption states, colours not yet joined, and what they state."""
    phrases, stated = {}, {}
    for name, value in scene.values.items():
        words = SUBJECTS[scene.subject].attributes[name].values[value].phrase
        if words is None or _flip(drop, generator):
            continue
        stated[name] = (value,)
        for group, members in GROUPS.get(name, {}).items():
            if value in members and _flip(GROUP_SHARE, generator):
                words, stated[name] = group, members
        phrases[name] = words
    return phrases, stated


def _joined(scene: Scene, phrases: Mapping[str, str]) -> dict[str, str]:
    """The phrases, colours inside those that they belong to: "red hair" and "long hair" become "long red hair"."""
    table, found = SUBJECTS[scene.subject].attributes, dict(phrases)
    for name in phrases:
        target = table[name].joins
        if target in found and _COLOUR in found[target]:
            found[target] = found[target].replace(_COLOUR, scene.values[name])
            del found[name]
    return {name: words.replace(_COLOUR, "") for name, words in found.items()}


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(scene: Scene, phrases: Mapping[str, str], noun: str, generator: torch.Generator) -> str:
    """A sentence such as "a person with long red hair and a beard, wearing a blue sweater, on a white background"."""
    table = SUBJECTS[scene.subject].attributes
    places: dict[str, list[str]] = {}
    for name, words in _joined(scene, phrases).items():
        places.setdefault(table[name].place, []).append(words)
    before = " ".join(_shuffled(places.get("before", []), generator))
    text = f"a {before} {places.get('noun', [noun])[0]}"
    if "in" in places:
        text += f" in {places['in'][0]}"
    if "with" in places:
        text += f" with {_list(_shuffled(places['with'], generator))}"
    if "wearing" in places:
        text += f", wearing {places['wearing'][0]}"
    if "on" in places:
        background = places["on"][0]
        text += f", {'in' if background.endswith('sky') else 'on'} {background}"
    return _clean(text)


def tags(scene: Scene, phrases: Mapping[str, str], noun: str, generator: torch.Generator) -> str:
    """The stated attributes as tags in random order, such as "person, red hair, glasses"; `noun` may be empty."""
    parts = [re.sub(r"^an? ", "", _clean(words)) for words in _joined(scene, phrases).values()]
    return ", ".join(_shuffled([*([noun] if noun else []), *parts], generator))


def _noun(scene: Scene, generator: torch.Generator) -> str:
    if scene.role and _flip(ROLE_WORD_SHARE, generator):
        return scene.role
    nouns = SUBJECTS[scene.subject].nouns
    return nouns[0] if len(nouns) == 1 or _flip(0.8, generator) else nouns[1]


def _fewer(
    phrases: dict[str, str], stated: Stated, count: int, generator: torch.Generator
) -> tuple[dict[str, str], Stated]:
    """At most `count` of what a caption states."""
    names = _shuffled(list(phrases), generator)[:count]
    return {name: phrases[name] for name in names}, {name: stated[name] for name in names}


def caption(scene: Scene, generator: torch.Generator) -> tuple[str, Stated]:
    """A caption, never empty, and what it states."""
    kind = float(torch.rand((), generator=generator))
    as_tags, short = kind < TAG_SHARE, kind > 1 - SHORT_SHARE
    phrases, stated = _choose(scene, DROP_TAGS if as_tags else DROP, generator)
    noun = _noun(scene, generator)
    if short:
        phrases, stated = _fewer(phrases, stated, 0 if _flip(ALONE, generator) else 1, generator)
    elif as_tags and _flip(ONE_TAG, generator):
        phrases, stated = _fewer(phrases, stated, 1, generator)
    if as_tags and phrases:
        noun = "" if _flip(NO_SUBJECT, generator) else noun
        text = tags(scene, phrases, noun, generator)
    else:
        text = sentence(scene, phrases, noun, generator)
    return text, {**({SUBJECT: (scene.subject,)} if noun else {}), **stated}


def full_caption(scene: Scene, generator: torch.Generator) -> tuple[str, Stated]:
    """A sentence that states every attribute that has words, and what it states."""
    phrases, stated = {}, {SUBJECT: (scene.subject,)}
    for name, value in scene.values.items():
        words = SUBJECTS[scene.subject].attributes[name].values[value].phrase
        if words is not None:
            phrases[name], stated[name] = words, (value,)
    return sentence(scene, phrases, SUBJECTS[scene.subject].nouns[0], generator), stated


def training_caption(scene: Scene, generator: torch.Generator) -> str:
    """A caption for training a teacher: empty one time in ten, to train the null prompt for guidance."""
    return NULL_PROMPT if _flip(EMPTY_SHARE, generator) else caption(scene, generator)[0]
