"""What is tried of each method: eight settings, each with the padded and with the trimmed negative.

Fixed before anything was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.methods import settings
from experiments.negatives.settings import Protocol

TUNING = Protocol(pairs_per_group=3, pair_images=20, images=8, seeds=(70_000,))
REPORTING = Protocol(pairs_per_group=3, pair_images=20, images=25, seeds=(95_000,))
ABSENT, KEPT = 0.80, 0.95
"""The bars: at least so much is absent and kept."""


@dataclass(frozen=True, kw_only=True)
class Setting(settings.Setting):
    """A method with its parameters; trim: whether the negative's padding is left out."""

    trim: bool = False

    def __str__(self) -> str:
        others = [f"{key} {value:g}" for key, value in self.others.items()]
        return ", ".join([self.method, f"{self.strength:g}", *others, "trimmed" if self.trim else "padded"])


def _grid(method: str, strengths: tuple[float, ...], *others: dict[str, float]) -> tuple[Setting, ...]:
    found = settings.grid(method, strengths, *others)
    return tuple(Setting(**vars(each), trim=trim) for trim in (False, True) for each in found)


_ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "m_N": _grid("m_N", _ALPHAS),
    "m_P": _grid("m_P", _ALPHAS),
    # The text's share of the attention is a tenth or less, so without it strengths are smaller.
    "m = 1": _grid("m = 1", (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)),
    # The paper that names it so uses 0.25.
    "whole": _grid("whole", (0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75)),
    "NAG": _grid("NAG", (4.0, 10.0), *({"tau": tau, "blend": a} for tau in (2.5, 5.0) for a in (0.375, 0.75))),
    "VSF": _grid("VSF", (1.0, 2.0, 4.0, 8.0), {"beta": 0.0}, {"beta": 1.0}),
    "orthogonal": _grid("orthogonal", _ALPHAS),
    "CFG": _grid("CFG", (1.1, 1.25, 1.5, 2.0, 3.0, 4.5, 6.0, 7.5)),
}
