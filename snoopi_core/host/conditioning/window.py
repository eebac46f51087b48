"""When a technique acts: a window of the sampling process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Window:
    """From `start_percent` (0 is pure noise) to `end_percent` (1 is the clean image), excluding the end."""

    start_percent: float = 0.0
    end_percent: float = 1.0

    @property
    def is_empty(self) -> bool:
        return self.start_percent >= self.end_percent

    @property
    def covers_all(self) -> bool:
        """Whether every step is inside. Check this before `is_active`, where reading sigma waits for the GPU."""
        return self.start_percent <= 0.0 and self.end_percent >= 1.0

    def is_active(self, sigma: float, sampling: Any) -> bool:
        """Whether a step at noise level `sigma` of the host's `sampling` is in the window; adjacent ones share no step.

        0 and 1 set no limit, because some schedules start a rounding error above their sigma at 0 percent.
        """
        begun = self.start_percent <= 0.0 or sigma <= sampling.percent_to_sigma(self.start_percent)
        return begun and (self.end_percent >= 1.0 or sigma > sampling.percent_to_sigma(self.end_percent))
