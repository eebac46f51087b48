"""95 % confidence intervals, by scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson interval of a rate, seen in `share` of `count` independent cases."""
    interval = stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def of_mean(mean: float, standard_error: float) -> tuple[float, float]:
    """Interval of a mean of many values, by the normal distribution."""
    margin = float(stats.norm.ppf(0.975)) * standard_error
    return mean - margin, mean + margin


def bootstrap(values: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`.

    If the cases form groups that resemble each other, pass the mean of each group.
    """
    if len(values) == 1:
        return values[0], values[0]
    rng = np.random.default_rng(seed)
    result = stats.bootstrap((values,), np.mean, n_resamples=draws, method="percentile", rng=rng)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
