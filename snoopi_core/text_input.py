"""Text that a person typed, or that another node made and may be of any length."""

from __future__ import annotations

_DIGITS = 12


def shorten(text: str, length: int = 60) -> str:
    """`text` as it fits into a message."""
    return text if len(text) <= length else text[:length] + "..."


def parse_digits(digits: str) -> int:
    """The number; where it is past any use, some number of 13 digits (Python refuses to read more than 4300)."""
    significant = digits.lstrip("0")
    return int(significant[: _DIGITS + 1] or "0")
