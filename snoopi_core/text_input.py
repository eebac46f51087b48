"""Helpers for text of any length that a person typed or another node made."""

from __future__ import annotations

_MAX_DIGITS = 12


def shorten(text: str, length: int = 60) -> str:
    """`text`, cut off after `length` characters so that it fits into a message."""
    return text if len(text) <= length else text[:length] + "..."


def parse_digits(digits: str) -> int:
    """The number, cut off after 13 significant digits: Python refuses to parse more than 4300."""
    significant = digits.lstrip("0")
    return int(significant[: _MAX_DIGITS + 1] or "0")
