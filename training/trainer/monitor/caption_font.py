"""A font for captions in any script: Pillow's own has little more than ASCII, matplotlib's has most alphabets.

For other scripts (Chinese, Japanese, Korean, emoji ...) a font of this machine is used. Characters that no font has are
drawn as "?", and a warning names them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

log = logging.getLogger(__name__)
_MISSING = "?"


def caption_font(texts: Iterable[str], size: int) -> tuple[ImageFont.FreeTypeFont, dict[int, str]]:
    """The font that has the most of the texts' characters, and a table for `str.translate` that replaces the others."""
    path, missing = _best(frozenset(letter for text in texts for letter in text if not letter.isspace()))
    return ImageFont.truetype(path, size), dict.fromkeys(map(ord, missing), _MISSING)


@lru_cache(maxsize=32)
def _best(letters: frozenset[str]) -> tuple[str, frozenset[str]]:
    """(the font's file, the characters that it lacks); warns of these."""
    best, missing = "", letters
    for path in _fonts():
        lacking = _lacking(path, letters)
        if not best or len(lacking) < len(missing):
            best, missing = path, lacking
        if not missing:
            break
    if missing:
        log.warning(
            "no font on this machine has these characters, so captions show %s for them: %s; install a font that has "
            "them, such as Noto Sans CJK or Noto Emoji",
            _MISSING,
            " ".join(
                f"{letter if letter.isprintable() else ''}(U+{ord(letter):04X})" for letter in sorted(missing)[:20]
            ),
        )
    return best, missing


def _fonts() -> Iterator[str]:
    from matplotlib import font_manager, get_data_path  # slow to import

    yield str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    yield from sorted(font_manager.findSystemFonts())


def _lacking(path: str, letters: frozenset[str]) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        has = FT2Font(path).get_charmap()
        ImageFont.truetype(path, 12)  # some fonts have pictures of one size only
    except (OSError, RuntimeError, ValueError):
        return letters
    return frozenset(letter for letter in letters if ord(letter) not in has)
