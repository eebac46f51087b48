"""How the tables of the world are written: subjects, their attributes, the values' words, frequencies and drawings.

A value's `style` is what DiceBear calls it: a variant of the attribute's component, or a colour. None leaves the
component out. An attribute without a component is drawn by us (accessories.py). A value without a `phrase` is never
named in a caption, as nobody writes "a person without a hat".
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Value:
    """One value of an attribute: how often, DiceBear's name, and its words, with {} where a colour goes."""

    weight: float
    style: str | None
    phrase: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One attribute of a subject.

    component: DiceBear's component, or with `colour` its colour, that the value chooses; empty: drawn by us.
    place: where a sentence has the phrase: `before` the noun, as the `noun`, after `in`, `with` or `wearing`, or `on`.
    joins: the attribute whose phrase takes up this colour, if both are stated.
    needs: the values that another attribute must have, else this one cannot be seen and the scene does not have it.
    """

    component: str = ""
    values: dict[str, Value]
    colour: bool = False
    place: str = "with"
    joins: str = ""
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Role:
    """A word for the subject that makes some values likely, and states none: a lumberjack mostly has a beard."""

    word: str
    likely: dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A kind of picture. `style` is DiceBear's style, `fixed` its options that never change."""

    style: str
    nouns: tuple[str, ...]
    attributes: dict[str, Attribute]
    fixed: dict[str, object] = field(default_factory=dict)
    roles: tuple[Role, ...] = ()


def colours(
    component: str, phrase: str, place: str, palette: dict[str, str], joins: str = "", **needs: tuple[str, ...]
) -> Attribute:
    """An attribute of equally frequent colours, each named by `phrase`."""
    values = {name: Value(1, colour, phrase.format(name)) for name, colour in palette.items()}
    return Attribute(component=component, values=values, colour=True, place=place, joins=joins, needs=needs)


# Far apart, so that no two are mistaken for each other in a small picture.
BRIGHT = {"red": "#e5383b", "yellow": "#f9c22e", "green": "#2fa866", "blue": "#2f7de0", "purple": "#8e4fd8"}
PALE = {"blue": "#a9d4ff", "green": "#b4e7b2", "pink": "#ffc0da", "white": "#f7f7f7"}
