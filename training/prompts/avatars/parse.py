"""What a text states about a picture of the world of avatars: the reverse of captions.py."""

from __future__ import annotations

import functools
import re

from training.prompts.avatars.captions import GROUPS, SUBJECT, Stated
from training.prompts.avatars.scene import SUBJECTS

# A pattern, the attribute and the values it states, and the attribute whose colour its group holds.
Pattern = tuple[re.Pattern[str], str, tuple[str, ...], str]


def _bare(text: str) -> str:
    """Text in lower case, without articles and punctuation."""
    words = re.sub(r"[^a-z\- ]", " ", text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


@functools.cache
def _patterns(subject: str) -> tuple[Pattern, ...]:
    """The patterns of a subject's phrases, the longest first."""
    table = SUBJECTS[subject].attributes
    found: list[tuple[int, Pattern]] = []
    for name, attribute in table.items():
        colours = next((other for other, about in table.items() if about.joins == name), "")
        palette = "|".join(table[colours].values) if colours else ""
        phrases = {about.phrase: (value,) for value, about in attribute.values.items() if about.phrase}
        for phrase, values in {**phrases, **GROUPS.get(name, {})}.items():
            before, slot, after = phrase.partition("{}")
            colour = f"(?:({palette}) )?" if slot and palette else ""
            words = [re.escape(_bare(before)), re.escape(_bare(after))]
            text = (words[0] + " " if words[0] else "") + colour + words[1] if slot else words[0]
            found.append((len(phrase), (re.compile(rf"\b{text}\b"), name, values, colours if colour else "")))
    return tuple(pattern for _, pattern in sorted(found, key=lambda pair: -pair[0]))


def _stated_by(subject: str, text: str) -> tuple[Stated, str]:
    """What a bare text states, if it is about a subject, and the words that are left over."""
    stated: Stated = {}
    for pattern, name, values, colours in _patterns(subject):
        match = pattern.search(text)
        if match is None or name in stated:
            continue
        stated[name] = values
        if colours and match[1]:
            stated[colours] = (match[1],)
        text = f"{text[: match.start()]} | {text[match.end() :]}"
    return stated, text


def parse(text: str) -> Stated:
    """What a caption or a negative prompt states; {} if nothing is known in it.

    Words that it does not know state nothing. Roles (a lumberjack) state the subject alone.
    """
    bare = _bare(text)
    readings = []
    for subject, about in SUBJECTS.items():
        stated, left = _stated_by(subject, bare)
        names = [*about.nouns, *(role.word for role in about.roles)]
        named = next((name for name in names if re.search(rf"\b{name}\b", left)), "")
        # The plant's kind is its noun.
        named = named or ("plant" if subject == "plant" and "plant" in stated else "")
        rest = len(re.sub(rf"\b{named}\b" if named else "$^", "", left).replace("|", "").split())
        readings.append((not named, rest, {**({SUBJECT: (subject,)} if named else {}), **stated}))
    return min(readings, key=lambda reading: reading[:2])[2]
