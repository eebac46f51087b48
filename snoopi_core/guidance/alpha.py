"""NASA's strength: what the paper uses, by kind of model (SNOOPI, arXiv 2412.02687, Table 8 and Figure 5)."""

from __future__ import annotations

import re
from decimal import Decimal

from ..presets import find_preset
from ..text_input import shorten

PRESETS_OF_KIND = {
    "SD1.5": ("PG-SB SD1.5", "DMD2 SD1.5", "InstaFlow-0.9B"),
    "SD2.1": ("PG-SB SD2.1", "SwiftBrush v2"),
    "PixArt": ("YOSO-PixArt", "PixArt-DMD", "PG-SB PixArt, 999"),
}
_SWEPT = {"SDXL": "0.0 to 1.0 by prompt (SDXL-DMD2)"}

LARGEST = 4.0
"""Past any use, for every model that was measured."""
_MOST = 32  # pictures side by side, more than anyone looks at
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}"
_ENDS = re.compile(rf"(?P<first>{_NUMBER})\s*(?:\.\.+|-|to)\s*(?P<last>{_NUMBER})")
_RANGE = re.compile(rf"(?P<first>{_NUMBER})\s*\.\.\s*(?P<last>{_NUMBER})\s+step\s+(?P<step>{_NUMBER})")


def paper_alphas(kind: str | None) -> str | None:
    """Such as "0.04 (PG-SB SD1.5, DMD2 SD1.5), 0.19 (InstaFlow-0.9B)"; None where the paper has none."""
    if kind not in PRESETS_OF_KIND:
        return _SWEPT.get(kind)
    names: dict[float, list[str]] = {}
    for name in PRESETS_OF_KIND[kind]:
        names.setdefault(find_preset(name).nasa_alpha, []).append(name)
    return ", ".join(f"{alpha:.2f} ({', '.join(several)})" for alpha, several in names.items())


def paper_alpha(kind: str | None, *, is_pg_sb: bool) -> tuple[float, str] | None:
    """The strength to take for a model of this kind, and the model that the paper has it from; None where it has none.

    That of PG-SB for a file of our trainer's; for a file of others, of which no more is known, the lowest of the kind:
    too little does less, too much breaks the picture.
    """
    names = PRESETS_OF_KIND.get(kind, ())
    if is_pg_sb:
        names = [name for name in names if name.startswith("PG-SB")]
    found = [(find_preset(name).nasa_alpha, name) for name in names]
    return min(found, key=lambda pair: pair[0], default=None)


def parse_alphas(text: str) -> tuple[float, ...]:
    """Strengths a person typed: "0, 0.25, 0.5, 1", or a range with both ends, "0..1 step 0.25".

    Raises:
        ValueError: in neither syntax, too large, too many, or with 0 in it twice, as "0,1, 0,2" has, where a comma was
            meant for a point; says what was got and what is expected.
    """
    expected = (
        f'expected numbers from 0 to {LARGEST:g} separated by commas, for example "0, 0.25, 0.5, 1", or a range, '
        'for example "0..1 step 0.25"; a decimal has a point, "0.5" and not "0,5"'
    )
    shown = shorten(text)
    if match := _RANGE.fullmatch(text.strip().lower()):
        # Decimal, because 0.1 has no end in binary: 3 steps of it would be labelled 0.30000000000000004.
        first, last, step = (Decimal(match[name]) for name in ("first", "last", "step"))
        if step == 0 or last < first:
            raise ValueError(f"alphas {shown!r}: the range has to rise, in steps above 0; {expected}")
        count = int((last - first) / step) + 1
        alphas = tuple(float(first + step * number) for number in range(min(count, _MOST + 1)))
    elif match := _ENDS.fullmatch(text.strip().lower()):
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
    if max(alphas) > LARGEST:
        raise ValueError(f"alphas {shown!r}: {max(alphas):g} is past any use; {expected}")
    if count > _MOST:
        raise ValueError(f"alphas {shown!r} are {count} pictures, at most {_MOST}; {expected}")
    if alphas.count(0.0) > 1:
        raise ValueError(f"alphas {shown!r}: 0 is in it {alphas.count(0.0)} times; {expected}")
    return alphas
