"""What every subject may wear: glasses, hats, horns, beards, ties, scarves, rings. Our own art, no part of DiceBear.

One drawing serves all subjects, so that a word means the same pixels on a person and on a planet. Drawings are SVG in
pixels of a 64x64 picture, around an origin that `PLACES` puts on the subject: a hat's is where it meets the head,
glasses' between the eyes, a beard's on the mouth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from training.prompts.avatars.tables import Attribute, Value

_INK = "#23212e"
_EDGE = f'stroke="{_INK}" stroke-width=".9" stroke-linejoin="round"'
_GOLD = "#f7b924"

# Values, their words and how often they occur, with any subject.
_SHARED: dict[str, Attribute] = {
    "eyewear": Attribute(
        values={
            "none": Value(48, None),
            "glasses": Value(32, None, "reading glasses"),
            "sunglasses": Value(20, None, "sunglasses"),
        }
    ),
    "headwear": Attribute(
        values={
            "none": Value(44, None),
            "top hat": Value(14, None, "a top hat"),
            "party hat": Value(14, None, "a party hat"),
            "crown": Value(12, None, "a crown"),
            "horns": Value(16, None, "horns"),
        }
    ),
    "facial hair": Attribute(values={"none": Value(60, None), "beard": Value(40, None, "a beard")}),
    "around": Attribute(
        values={
            "none": Value(52, None),
            "bow tie": Value(16, None, "a bow tie"),
            "scarf": Value(16, None, "a scarf"),
            "ring": Value(16, None, "a ring"),
        }
    ),
}


def shared(likely: Mapping[str, Mapping[str, float]] | None = None) -> dict[str, Attribute]:
    """The attributes that all subjects have; `likely` has other weights for one of them, by attribute and value."""
    found = dict(_SHARED)
    for name, weights in (likely or {}).items():
        values = {
            value: replace(about, weight=weights.get(value, about.weight))
            for value, about in found[name].values.items()
        }
        found[name] = replace(found[name], values=values)
    return found


@dataclass(frozen=True, kw_only=True)
class Places:
    """Heights of things on a subject, in pixels from the top; half of the gap between horns; the width of a scarf.

    They agree as far as shapes allow, or differ by whole cells of the latent code (8 pixels), so that the same things
    have the same code.
    """

    head: float = 21
    eyes: float = 33
    mouth: float = 43
    neck: float = 55
    ring: float = 55
    horns: float = 7.5
    width: float = 22


_PLANT = Places(head=27, eyes=51, mouth=57, neck=37.5, ring=31, horns=4, width=27)
PLACES: dict[tuple[str, str], Places] = {
    ("person", ""): Places(),
    ("monster", "round"): Places(width=37),
    ("monster", "square"): Places(head=23, horns=11, width=43),
    ("monster", "tall"): Places(head=19.5, horns=6, width=25),
    ("plant", "cactus"): _PLANT,
    ("plant", "flower"): replace(_PLANT, head=20, horns=5.5),
    ("plant", "bush"): replace(_PLANT, horns=5.5),
    ("plant", "palm"): _PLANT,
    ("planet", ""): Places(ring=39, width=24),
}
SHAPE = {"monster": "shape", "plant": "plant"}  # the attribute that decides where things are

_GLASSES = (
    f'<g fill="#fff" fill-opacity=".2" stroke="{_INK}" stroke-width="1.8"><circle cx="-6" r="5"/><circle cx="6" r="5"/>'
    '<path fill="none" d="M-1.4 -1a2 2 0 0 1 2.8 0M-11 -1l-2 -1M11 -1l2 -1"/></g>'
)
_SUNGLASSES = (
    f'<path fill="{_INK}" d="M-13 -4H13V-1.5L12 -1C12 4 10 5.5 7 5.5S1.5 4 1 -.5H-1'
    'C-1.5 4 -4 5.5 -7 5.5S-12 4 -12 -1L-13 -1.5Z"/>'
    '<path stroke="#fff" stroke-opacity=".75" stroke-width="1.3" d="M-9.5 2.5l3.5 -4M4 2.5l3.5 -4"/>'
)
_TOP_HAT = (  # the pale edge is for dark skies
    f'<path fill="{_INK}" stroke="#d8d8e4" stroke-width=".8" d="M-9 -15H9L8 -2.5H13.5V1.5H-13.5V-2.5H-8Z"/>'
    '<path fill="#e0314b" d="M-8 -7H8L7.8 -2.8H-7.8Z"/>'
)
_PARTY_HAT = (
    f'<path fill="#ff4f9e" {_EDGE} d="M0 -16L8.5 1Q0 3 -8.5 1Z"/>'
    '<path fill="#ffe14a" d="M-4.6 -6.8L3 -10L4.2 -7.6L-6 -4ZM-7.5 -1L6.2 -3.6L7.4 -1.2L-4 1.4L-8 .6Z"/>'
    f'<circle cy="-16" r="2.7" fill="#ffe14a" {_EDGE}/>'
)
_CROWN = (
    f'<path fill="{_GOLD}" {_EDGE} d="M-10 1.5L-11.5 -10L-5.5 -5L0 -12.5L5.5 -5L11.5 -10L10 1.5Z"/>'
    '<circle cy="-2" r="2" fill="#e0314b"/><circle cx="-6" cy="-1.5" r="1.5" fill="#2f7de0"/>'
    '<circle cx="6" cy="-1.5" r="1.5" fill="#2f7de0"/>'
)
_HORN = "M3.2 3.5C3.2 -4 5 -8.5 8 -12C1.5 -10 -3.2 -5 -3.2 3.5Z"
_BEARD = (
    '<path fill="#4a2a1a" d="M-12.2 -7C-13 5 -7 10.5 0 10.5S13 5 12.2 -7C11 -3.5 8.5 -4.2 5 -4.2Q2 -4.2 0 -3'
    'Q-2 -4.2 -5 -4.2C-8.5 -4.2 -11 -3.5 -12.2 -7Z"/><path fill="#fff" d="M-4.2 .4H4.2Q3.5 3.6 0 3.6T-4.2 .4Z"/>'
)
_BOW_TIE = f'<path fill="#ff4f9e" {_EDGE} d="M0 0L-9.5 -5V5L0 0L9.5 -5V5Z"/><circle r="2.4" fill="#c2185b" {_EDGE}/>'


def _horns(places: Places) -> str:
    horn = f'<path fill="#f5ead0" {_EDGE} d="{_HORN}"/>'
    return "".join(f'<g transform="translate({side * places.horns} 0) scale({side} 1)">{horn}</g>' for side in (-1, 1))


def _scarf(places: Places) -> str:
    half = places.width / 2
    band = f"M{-half} -3.5Q0 .5 {half} -3.5V2Q0 6 {-half} 2Z"
    stripes = "".join(f"M{x - 1.2} -4V7H{x + 1.2}V-4Z" for x in (-0.75 * half, -0.25 * half, 0.25 * half, 0.75 * half))
    left, right = half - 7, half - 1  # sides of the end that hangs down
    return (
        f'<clipPath id="scarf"><path d="{band}"/></clipPath><path fill="#e0314b" d="{band}"/>'
        f'<path clip-path="url(#scarf)" fill="#fff" d="{stripes}"/><path fill="none" {_EDGE} d="{band}"/>'
        f'<path fill="#e0314b" {_EDGE} d="M{left} 1.5H{right}V10.5H{left}Z"/>'
        f'<path fill="#fff" d="M{left + 1} 5.5H{right - 0.5}V8H{left + 1}Z"/>'
    )


def _ring(upper: bool) -> str:
    """Half of a ring: the upper one is behind the subject."""
    arc = f"M-28 0A28 8 0 0 {int(upper)} 28 0"
    return "".join(
        f'<path fill="none" stroke="{colour}" stroke-width="{width}" d="{arc}"/>'
        for colour, width in ((_INK, 5), (_GOLD, 3.4))
    )


def _at(height: float, drawing: str, turn: float = 0.0) -> str:
    return f'<g transform="translate(32 {height}) rotate({turn})">{drawing}</g>'


def _face() -> str:
    """Eyes and a mouth, for a planet, as DiceBear's monsters have them."""
    eyes = "".join(f'<circle cx="{x}" r="3.6" fill="#fff"/><circle cx="{x}" r="1.6" fill="{_INK}"/>' for x in (-6, 6))
    return (
        f'{eyes}<path fill="none" stroke="{_INK}" stroke-width="1.6" stroke-linecap="round" d="M-3.5 7q3.5 3.4 7 0"/>'
    )


def overlays(subject: str, values: Mapping[str, str]) -> tuple[str, str]:
    """SVG of what is behind a subject and of what is before it, in a picture of 64x64 pixels."""
    places = PLACES[subject, values[SHAPE[subject]] if subject in SHAPE else ""]
    behind, before = [], [_at(places.eyes, _face())] if subject == "planet" else []
    if values["around"] == "ring":
        behind.append(_at(places.ring, _ring(True), -10))
        before.append(_at(places.ring, _ring(False), -10))
    if values["facial hair"] == "beard":
        before.append(_at(places.mouth, _BEARD))
    if values["around"] == "scarf":
        before.append(_at(places.neck, _scarf(places)))
    if values["around"] == "bow tie":
        before.append(_at(places.neck, _BOW_TIE))
    if values["eyewear"] != "none":
        before.append(_at(places.eyes, _GLASSES if values["eyewear"] == "glasses" else _SUNGLASSES))
    hats = {"top hat": _TOP_HAT, "party hat": _PARTY_HAT, "crown": _CROWN, "horns": _horns(places)}
    if values["headwear"] != "none":
        before.append(_at(places.head, hats[values["headwear"]]))
    return "".join(behind), "".join(before)
