"""Errors that a command ends with: what the user did, or what one process of several met."""

from __future__ import annotations


class RecipeError(ValueError):
    """A recipe that cannot be used; the message lists every problem found."""


class FailedElsewhere(RuntimeError):
    """The first process has met an error, and says which; the others end as it does."""


class FailedHere(ValueError):
    """What this process has met, and others perhaps have not: it tells, whichever it is."""

    here = True
