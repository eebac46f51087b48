"""Errors that end a command: wrong input, or a failure of one process among several."""

from __future__ import annotations


class RecipeError(ValueError):
    """A recipe that cannot be used; the message lists every problem found."""


class FailedElsewhere(RuntimeError):
    """Raised in the other processes when the first process fails, which itself raises and reports the error."""


class FailedHere(ValueError):
    """An error that other processes may not have, so any process reports it, not only the first."""
