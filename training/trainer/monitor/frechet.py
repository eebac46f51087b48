"""The Fréchet distance of two Gaussians (Dowson and Landau 1982), as FID computes it (Heusel et al. 2017).

Dimensions: N images, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Gaussian:
    """mu (D,), and any F (D, K) with Sigma = F F^T; fp64. With few images F has few columns, which is fast."""

    mu: Array
    factor: Array

    @classmethod
    def of_features(cls, features: Array) -> Gaussian:
        """Fit to features (N, D): Sigma = X^T X / (N - 1), with X the centred features.

        Raises:
            ValueError: fewer than two images.
        """
        count, width = features.shape
        if count < 2:
            raise ValueError(f"FID needs two images or more, got {count}")
        mu = features.mean(axis=0, dtype=np.float64)
        centred = (features - mu) / np.sqrt(count - 1)
        if count > width:
            return cls.of_statistics(mu, centred.T @ centred)
        return cls(mu, centred.T)

    @classmethod
    def of_statistics(cls, mu: Array, sigma: Array) -> Gaussian:
        """From a mean (D,) and a covariance (D, D); eigenvalues that rounding has made negative are set to 0."""
        values, vectors = np.linalg.eigh(np.asarray(sigma, dtype=np.float64))
        return cls(np.asarray(mu, dtype=np.float64), vectors * np.sqrt(values.clip(min=0)))

    @property
    def sigma(self) -> Array:
        return self.factor @ self.factor.T


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """d^2 = |mu1 - mu2|^2 + Tr(S1) + Tr(S2) - 2 Tr((S1 S2)^1/2)

    With S = F F^T, the last trace is the sum of the singular values of F1^T F2: their squares are the eigenvalues of
    S1 S2.
    """
    shift = one.mu - other.mu
    traces = np.square(one.factor).sum() + np.square(other.factor).sum()
    cross = np.linalg.svd(one.factor.T @ other.factor, compute_uv=False).sum()
    return float(shift @ shift + traces - 2 * cross)
