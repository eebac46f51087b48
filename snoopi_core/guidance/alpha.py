"""NASA's strength alpha: the paper's values by kind of model (SNOOPI, arXiv 2412.02687, Table 8 and Figure 5)."""

from __future__ import annotations

import re
from decimal import Decimal

from ..presets import find_preset
from ..text_input import shorten
from .methods import METHOD_NAMES, NASA, Method, make_method

PRESETS_BY_KIND = {
    "SD1.5": ("PG-SB SD1.5", "DMD2 SD1.5", "InstaFlow-0.9B"),
    "SD2.1": ("PG-SB SD2.1", "SwiftBrush v2"),
    "PixArt": ("YOSO-PixArt", "PixArt-DMD", "PG-SB PixArt, 999"),
}
_SWEPT_BY_KIND = {"SDXL": "0.0 to 1.0 by prompt (SDXL-DMD2)"}

_MAX_COUNT = 32  # pictures side by side
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}"
_RANGE_WITHOUT_STEP = re.compile(rf"(?P<first>{_NUMBER})\s*(?:\.\.+|-|to)\s*(?P<last>{_NUMBER})")
_RANGE = re.compile(rf"(?P<first>{_NUMBER})\s*\.\.\s*(?P<last>{_NUMBER})\s+step\s+(?P<step>{_NUMBER})")


def describe_paper_alphas(kind: str | None) -> str | None:
    """Such as "0.04 (PG-SB SD1.5, DMD2 SD1.5), 0.19 (InstaFlow-0.9B)"; None if the paper has no value."""
    if kind not in PRESETS_BY_KIND:
        return _SWEPT_BY_KIND.get(kind)
    names: dict[float, list[str]] = {}
    for name in PRESETS_BY_KIND[kind]:
        names.setdefault(find_preset(name).nasa_alpha, []).append(name)
    return ", ".join(f"{alpha:.2f} ({', '.join(several)})" for alpha, several in names.items())


def paper_alpha(kind: str | None, *, is_pg_sb: bool) -> tuple[float, str] | None:
    """The strength for a model of this kind, and the paper's model that it belongs to; None if the paper has no value.

    For a file of our trainer: PG-SB's value. For other files, where only the kind is known: the lowest value of that
    kind, since too little only has a weaker effect, while too much breaks the picture.
    """
    names = PRESETS_BY_KIND.get(kind, ())
    if is_pg_sb:
        names = [name for name in names if name.startswith("PG-SB")]
    found = [(find_preset(name).nasa_alpha, name) for name in names]
    return min(found, key=lambda pair: pair[0], default=None)


def parse_sweep(text: str) -> tuple[tuple[Method, float], ...]:
    """Parse methods and their strengths: "0, 0.25, 0.5, 1" for NASA, or "NASA: 0, 0.5; NAG: 2, 4; VSF: 1..2 step 0.5".

    Raises:
        ValueError: as `parse_alphas`; or a method that is not known.
    """
    found: list[tuple[Method, float]] = []
    known = {each.lower(): each for each in METHOD_NAMES}
    for part in [part.strip() for part in text.split(";") if part.strip()] or [text]:
        name, colon, alphas = part.rpartition(":")
        if not colon and part.split(maxsplit=1)[:1] and part.split(maxsplit=1)[0].lower() in known:
            raise ValueError(f'alphas {shorten(text)!r}: write a colon after the method, for example "NAG: 2, 4"')
        if colon and name.strip().lower() not in known:
            raise ValueError(
                f"alphas {shorten(text)!r}: {shorten(name.strip())!r} is not a method; available: "
                f'{", ".join(METHOD_NAMES)}, for example "NASA: 0, 0.5; NAG: 2, 4"'
            )
        method = make_method(known[name.strip().lower()] if colon else NASA.name)
        found += [(method, alpha) for alpha in parse_alphas(alphas, highest=method.highest)]
    if len(found) > _MAX_COUNT:
        raise ValueError(f"alphas {shorten(text)!r} are {len(found)} pictures, at most {_MAX_COUNT}")
    return tuple(found)


def parse_alphas(text: str, *, highest: float = NASA.highest) -> tuple[float, ...]:
    """Parse strengths that a person typed: "0, 0.25, 0.5, 1", or a range including both ends, "0..1 step 0.25".

    Raises:
        ValueError: in neither syntax, above `highest`, too many, or 0 more than once (a sign of decimal commas, as in
            "0,1, 0,2"); says what was got and what is expected.
    """
    expected = (
        f'expected numbers from 0 to {highest:g} separated by commas, for example "0, 0.25, 0.5, 1", or a range, '
        'for example "0..1 step 0.25"; write decimals with a point, "0.5" and not "0,5"'
    )
    shown = shorten(text)
    if match := _RANGE.fullmatch(text.strip().lower()):
        # Decimal, because 3 binary steps of 0.1 would be labelled 0.30000000000000004.
        first, last, step = (Decimal(match[name]) for name in ("first", "last", "step"))
        if step == 0 or last < first:
            raise ValueError(f"alphas {shown!r}: the range must increase, with a step above 0; {expected}")
        count = int((last - first) / step) + 1
        alphas = tuple(float(first + step * number) for number in range(min(count, _MAX_COUNT + 1)))
    elif match := _RANGE_WITHOUT_STEP.fullmatch(text.strip().lower()):
        ends = f"{match['first']}..{match['last']}"
        raise ValueError(f'alphas {shown!r} has no step: for a range write "{ends} step 0.25"; {expected}')
    else:
        words = text.replace(",", " ").split()
        if not words:
            raise ValueError(f"alphas is empty; {expected}")
        for word in words:
            if re.fullmatch(_NUMBER, word) is None:
                raise ValueError(f"alphas {shown!r}: {shorten(word)!r} is not a number; {expected}")
        alphas = tuple(map(float, words))
        count = len(alphas)
    if max(alphas) > highest:
        raise ValueError(f"alphas {shown!r}: {max(alphas):g} is too large; {expected}")
    if count > _MAX_COUNT:
        raise ValueError(f"alphas {shown!r} are {count} pictures, at most {_MAX_COUNT}; {expected}")
    if alphas.count(0.0) > 1:
        raise ValueError(f"alphas {shown!r}: 0 appears {alphas.count(0.0)} times; {expected}")
    return alphas
