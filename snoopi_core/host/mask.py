"""Where in the picture a negative acts: from a MASK to weights on the image tokens of an attention.

Dimensions: R rows, F frames, h x w height and width, N image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.utils
import torch
from torch.nn.functional import adaptive_avg_pool3d

Area = tuple[int, int, int, int]


def check_mask(mask: torch.Tensor) -> torch.Tensor:
    """A MASK as (n, h, w) in fp32.

    Raises:
        ValueError: another shape, or values outside [0, 1].
    """
    if mask.ndim == 2:
        mask = mask.unsqueeze(0)
    if mask.ndim != 3 or mask.numel() == 0:
        raise ValueError(f"mask is {tuple(mask.shape)}, expected (height, width) or (images, height, width)")
    mask = mask.detach().float()
    low, high = float(mask.min()), float(mask.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"mask has values from {low:g} to {high:g}, expected 0 (untouched) to 1 (the negative acts)")
    return mask


def mask_of_rows(
    mask: torch.Tensor, *, rows: int, is_video: bool, size: tuple[int, int], areas: Sequence[Area | None]
) -> torch.Tensor:
    """The mask of each row of a call, (R, F, h, w) with R = rows * len(areas).

    Args:
        mask: (n, h, w): n images of a batch, or n frames of a video.
        rows: of each conditioning.
        size: (height, width) of the whole latent.
        areas: of each conditioning, what the host crops out of the latent; None for all of it.
    """
    each = mask.unsqueeze(0 if is_video else 1)
    each = comfy.utils.repeat_to_batch_size(each, rows)
    parts = []
    for area in areas:
        part = each
        if area is not None:
            height, width, y, x = area
            part = _resize(each, (each.shape[1], *size))[..., y : y + height, x : x + width]
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def mask_of_tokens(mask: torch.Tensor, grid: tuple[int, int, int], tokens: int) -> torch.Tensor:
    """The mean of the mask over what each token covers, (R, N, 1), for mask (R, F, h, w) and tokens in a grid.

    Ones stay exactly 1 and zeros exactly 0.

    Raises:
        ValueError: the tokens are not this grid's, as when a network takes more than the picture among its own.
    """
    if grid[0] * grid[1] * grid[2] != tokens:
        raise ValueError(
            f"mask: an attention has {tokens} image tokens, expected {' x '.join(map(str, grid))}; something adds to "
            "them or merges them here. Disconnect the mask of NASA Apply, or that other node"
        )
    return _resize(mask, grid).flatten(1).unsqueeze(-1)


def _resize(mask: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    return adaptive_avg_pool3d(mask.unsqueeze(1), grid).squeeze(1)
