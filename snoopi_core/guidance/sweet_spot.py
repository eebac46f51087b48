"""Which of several strengths to start with: only where one is known for the model.

Pictures alone do not tell: whether the unwanted thing is gone is for a person to see. What can be justified is an alpha
that was measured for the model's file, or that the paper published for it. Below that alpha pictures do not break, and
close to it the negative still acts; above it neither is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .methods import NASA, Method

CLOSE = 0.5
"""Share of the known alpha from which another alpha counts as close to it."""
_LOOK = "Choose the smallest alpha at which the unwanted thing is gone"


@dataclass(frozen=True)
class SweetSpot:
    """The chosen strength, and the reason for the choice, or for none.

    place: its number among the strengths; None if none can be chosen.
    """

    place: int | None
    alpha: float | None
    reason: str


def choose(
    strengths: Sequence[tuple[Method, float]], known: tuple[float, str] | None, *, does_nothing: str = ""
) -> SweetSpot:
    """The largest alpha of NASA that is not above the known one, and close to it.

    Args:
        known: the model's alpha, and where it comes from; None if no alpha is known.
        does_nothing: why NASA changes no picture, if it changes none.
    """
    alphas = [(alpha, place) for place, (method, alpha) in enumerate(strengths) if method is NASA and alpha > 0.0]
    if does_nothing:
        return _none(does_nothing)
    if not alphas:
        return _none("the list has no alpha of NASA above 0, and for other methods none is known. " + _LOOK)
    if known is None:
        return _none("no alpha has been measured or published for this model. " + _LOOK)
    best, source = known
    if best == 0.0:
        return _none(f"0 is known for this model ({source}): no negative prompt is recommended. " + _LOOK)
    close = [(alpha, place) for alpha, place in alphas if CLOSE * best <= alpha <= best]
    if not close:
        return _none(
            f"{best:g} is known for this model ({source}), and the list has no alpha from {CLOSE * best:g} to it. "
            f"Add {best:g} to alphas"
        )
    alpha, place = max(close, key=lambda pair: pair[0])
    why = source if alpha == best else f"the largest here that is not above {best:g}, {source}"
    return SweetSpot(place, alpha, f"Sweet spot: alpha {alpha:g} ({why})")


def _none(reason: str) -> SweetSpot:
    return SweetSpot(None, None, f"No sweet spot: {reason}")
