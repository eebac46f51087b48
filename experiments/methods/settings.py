"""The settings that are tried: eight for each method, and the rule by which one is chosen.

Both were fixed before anything was measured with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from experiments.negatives.settings import Protocol

TUNING = Protocol(images=10, seeds=(70_000,))
REPORTING = Protocol(images=100, seeds=(95_000,))
KEPT = 0.95
"""A setting is chosen among those that keep the prompt in at least this share of the images."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A method with all its parameters; `others` are those beside the strength."""

    method: str
    strength: float
    others: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(
            [self.method, f"{self.strength:g}", *(f"{key} {value:g}" for key, value in self.others.items())]
        )


def grid(method: str, strengths: tuple[float, ...], *others: dict[str, float]) -> tuple[Setting, ...]:
    """Settings of a method: each strength with each of the other parameters."""
    return tuple(
        Setting(method=method, strength=strength, others=each) for each in others or ({},) for strength in strengths
    )


_ALPHAS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "nasa": grid("nasa", _ALPHAS),
    "orthogonal": grid("orthogonal", _ALPHAS),
    # The paper's phi 4, tau 2.5 and a 0.375 (PixArt), and more of each.
    "nag": grid("nag", (4.0, 10.0), *({"tau": tau, "blend": a} for tau in (2.5, 5.0) for a in (0.375, 0.75))),
    # The paper's scales run from 0.2 to above 3; its beta is an offset of a few units at most.
    "vsf": grid("vsf", (0.25, 0.5, 1.0, 3.0), {"beta": 0.0}, {"beta": 1.0}),
    "cfg": grid("cfg", (1.1, 1.25, 1.5, 2.0, 3.0, 4.5, 6.0, 7.5)),
    "embeddings": grid("embeddings", (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5)),
}


def choose(kept: Mapping[str, float], clean: Mapping[str, float]) -> str:
    """Most clean removals among the settings with kept >= KEPT; if there are none, the highest clean x kept.

    Args:
        kept, clean: shares by setting. Of equal ones the first is chosen.
    """
    allowed = [name for name in kept if kept[name] >= KEPT]
    return (
        max(allowed, key=lambda name: clean[name]) if allowed else max(kept, key=lambda name: clean[name] * kept[name])
    )
