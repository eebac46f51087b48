"""When a technique acts: a window of the sampling process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class ModelSampling(Protocol):
    """The part of the host's model_sampling objects that is used here."""

    def percent_to_sigma(self, percent: float) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Window:
    """From `start_percent` (0 is pure noise) up to, not including, `end_percent` (1 is the clean image)."""

    start_percent: float = 0.0
    end_percent: float = 1.0

    @property
    def is_empty(self) -> bool:
        return self.start_percent >= self.end_percent

    @property
    def is_everything(self) -> bool:
        """Asked first, because reading sigma off a GPU would make the CPU wait for it."""
        return self.start_percent <= 0.0 and self.end_percent >= 1.0

    def is_active(self, sigma: float, sampling: ModelSampling) -> bool:
        """Whether a step at noise level `sigma` lies in the window; windows that touch share no step.

        The ends are open: some schedules begin a rounding error above the sigma that they have at 0 percent.
        """
        begun = self.start_percent <= 0.0 or sigma <= sampling.percent_to_sigma(self.start_percent)
        return begun and (self.end_percent >= 1.0 or sigma > sampling.percent_to_sigma(self.end_percent))
