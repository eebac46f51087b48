"""Noise that depends on an image's own seed alone, so not on the batch that the image is made in."""

from __future__ import annotations

import torch


def noise(seeds: list[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Standard normal latents (B, *shape) fp32, from one seed for each image."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
