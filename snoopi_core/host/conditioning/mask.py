"""Where in the picture a negative acts: convert a MASK to weights on the image tokens of an attention.

Dimensions: R rows, F frames, h x w height and width, N image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.utils
import torch
from comfy.context_windows import IndexListContextWindow
from torch.nn.functional import adaptive_avg_pool3d

Area = tuple[tuple[int, ...], tuple[int, ...]]
"""Sizes and offsets in latent cells, (h, w) each, or (F, h, w) for a video."""


@dataclass(frozen=True, kw_only=True)
class WindowPart:
    """The part of a latent that a context window takes: `indices` of `total` along dimension `dim`."""

    dim: int
    indices: tuple[int, ...]
    total: int


def window_part(
    options: Mapping[str, Any], shape: Sequence[int], whole: Sequence[int] | None = None
) -> WindowPart | None:
    """The part that a context window took: the host's own, or AnimateDiff-Evolved's; None without a window.

    Args:
        options: the call's transformer_options.
        shape: of the resulting latent, (rows, C, h, w) or (rows, C, F, h, w).
        whole: the shape of the whole run's latent, if it is known.

    Raises:
        ValueError: the latent contains more than the window's own frames.
    """
    window, animated = options.get("context_window"), options.get("ad_params")
    if isinstance(window, IndexListContextWindow):
        # Newer hosts prepend the frame before the window.
        anchor = getattr(window, "causal_anchor_index", None)
        indices = (*(() if anchor is None or anchor < 0 else (anchor,)), *window.index_list)
        part = WindowPart(dim=window.dim, indices=indices, total=window.total_frames)
    elif isinstance(animated, Mapping) and animated.get("sub_idxs") is not None:
        indices = tuple(animated["sub_idxs"])
        part = WindowPart(dim=0, indices=indices, total=whole[0] if whole else animated["full_length"])
    else:
        return None
    if shape[part.dim] != len(part.indices):
        raise ValueError(
            f"mask: a context window has {shape[part.dim]} frames, expected {len(part.indices)}; another node adds "
            "guide frames to it. Disconnect the mask of NASA Apply, or remove the context windows"
        )
    return part


def check_whole(
    mask: torch.Tensor, *, shape: Sequence[int], whole: Sequence[int], part: WindowPart | None = None
) -> None:
    """Check that a latent is the whole one of the run, or the known part of it; as far as this mask depends on it.

    Args:
        mask: (n, h, w).
        shape, whole: of the latent and of the whole run's, (rows, C, h, w) or (rows, C, F, h, w).

    Raises:
        ValueError: another node has taken a part, and nothing says which.
    """
    expected = list(whole)
    if part is not None:
        expected[part.dim] = len(part.indices)
    if tuple(shape[-2:]) != tuple(expected[-2:]):
        got, all_of_it = (" x ".join(map(str, size[-2:])) for size in (shape, expected))
        raise ValueError(
            f"mask: the model gets a latent of {got}, but the run's is {all_of_it}, and nothing says which part of it "
            "this is: another node divides or resizes it. Disconnect the mask of NASA Apply, or remove that node"
        )
    axis = 2 if len(whole) == 5 and whole[2] > 1 else 0
    if mask.shape[0] > 1 and shape[axis] != expected[axis]:
        raise ValueError(
            f"mask: the model gets {shape[axis]} of the run's {expected[axis]} frames or images, and nothing says "
            "which: another node divides them. Use a mask of one picture in NASA Apply, or remove that node"
        )


def check_mask(mask: torch.Tensor) -> torch.Tensor:
    """A MASK as (n, h, w) in fp32.

    Raises:
        ValueError: wrong shape, or values outside [0, 1].
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


def mask_for_rows(
    mask: torch.Tensor,
    *,
    rows: int,
    size: tuple[int, ...],
    areas: Sequence[Area | None],
    part: WindowPart | None = None,
) -> torch.Tensor:
    """The mask of each row of a call, (R, F, h, w) with R = rows * len(areas).

    Args:
        mask: (n, h, w), for n images of a batch or n frames of a video latent.
        rows: of each conditioning.
        size: (h, w) or (F, h, w) of the latent, before cropping to areas.
        areas: the area of each conditioning that the host crops out of the latent; None for the whole latent.
        part: the part of a larger latent that this latent is, if any.
    """
    # In the order of the mask's dimensions; pictures have one frame.
    sizes = [rows, *(1,) * (3 - len(size)), *size]
    axis = 0
    if part is not None:
        axis = part.dim and part.dim + 2 - len(size)
        sizes[axis] = part.total
    frames = sizes[1]
    each = comfy.utils.repeat_to_batch_size(mask.unsqueeze(1 if frames == 1 else 0), sizes[0])
    if part is not None:
        if axis > 0:
            each = _resize(each, tuple(sizes[1:]))
        each = each.index_select(axis, torch.tensor(part.indices, device=each.device))
    parts = [each if area is None else _crop(_resize(each, _padded(size, 1)), area) for area in areas]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def mask_for_cells(
    mask: torch.Tensor, *, size: tuple[int, ...], rows: Sequence[int], cells: torch.Tensor
) -> torch.Tensor:
    """The mask at the given places of a latent, (R, F, h, w).

    Args:
        mask: of each row of the latent, (any, F, h, w).
        size: (h, w) or (F, h, w) of the latent.
        rows: the row of `mask` for each row of the result.
        cells: their places in the latent, (R, 2, h, w) or (R, 3, F, h, w).
    """
    if len(size) == 2:
        cells = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1).unsqueeze(2)
    return take_cells(_resize(mask, _padded(size, 1)).unsqueeze(1), rows, cells).squeeze(1)


def take_cells(whole: torch.Tensor, rows: Sequence[int], cells: torch.Tensor) -> torch.Tensor:
    """The places `cells` (b, D, *part) of the given rows of `whole` (B, C, *size), as (b, C, *part)."""
    row = torch.tensor(rows, device=whole.device).view(-1, *(1,) * (cells.ndim - 2))
    return whole[(row, slice(None), *cells.unbind(1))].movedim(-1, 1)


def mask_for_tokens(mask: torch.Tensor, grid: tuple[int, int, int], tokens: int) -> torch.Tensor:
    """The mean of the mask over the area of each token, (R, N, 1), for mask (R, F, h, w) and tokens in a grid.

    Ones stay exactly 1 and zeros exactly 0.

    Raises:
        ValueError: the tokens do not fill the grid, for example because the network adds tokens to the picture's.
    """
    if grid[0] * grid[1] * grid[2] != tokens:
        raise ValueError(
            f"mask: an attention has {tokens} image tokens, expected {' x '.join(map(str, grid))}; a reference "
            "picture, a pose or another node adds tokens to the picture's, or merges them. Disconnect the mask of NASA "
            "Apply, or what adds them"
        )
    return _resize(mask, grid).flatten(1).unsqueeze(-1)


def _crop(mask: torch.Tensor, area: Area) -> torch.Tensor:
    sizes, offsets = area
    pairs = zip(_padded(sizes, 1), _padded(offsets, 0), strict=True)
    return mask[(slice(None), *(slice(offset, offset + size) for size, offset in pairs))]


def _padded(values: tuple[int, ...], frames: int) -> tuple[int, int, int]:
    return values if len(values) == 3 else (frames, *values)


def _resize(mask: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    # PyTorch does not support this on Apple's GPUs.
    there = mask.cpu() if mask.device.type == "mps" else mask
    return adaptive_avg_pool3d(there.unsqueeze(1), grid).squeeze(1).to(mask.device)
