"""How sure a measured share is: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Of a rate seen in `share` of `count` independent cases (Wilson, 1927)."""
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Of the mean of `values`, which are drawn again with replacement (Efron, 1979): the middle 95 % of those means.

    For groups of cases that resemble each other, give each group's mean.
    """
    rng = np.random.default_rng(seed)
    found = np.asarray(values, dtype=np.float64)
    means = rng.choice(found, size=(draws, len(found))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
