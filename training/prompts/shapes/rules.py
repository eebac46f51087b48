"""Read the attributes of an image of the small world by rules on its pixels, without a network.

Dimensions: B images, P = H * W pixels, K candidate values. Images are (B, 3, H, W) in [0, 1].

This is analysis by synthesis: the background is the colour of the corners, the object's colour is the one farthest from
it, and the shape is the one that overlaps the object best when it is drawn with the object's area and centroid. An
image is valid if that explains all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from training.prompts.shapes.scene import BACKGROUNDS, COLOURS, POSITIONS, RADIUS, RING_HOLE, SHAPES, SIZE, coverage

CORNER = 6  # side in pixels of the corner patches, which no object reaches
COLOUR_TOLERANCE = 0.20  # distance in RGB between an object or a background and its named colour
UNIFORM_TOLERANCE = 0.06  # mean distance of the background's pixels from its colour
STRAY_TOLERANCE = 0.08  # mean distance of a pixel from the best drawing of the scene
MASK_MARGIN = 0.15  # faint traces on either side of the mask do not count as object or hole
MIN_OVERLAP = 0.85  # intersection over union with the best shape
RADIUS_MARGIN = 2.0  # pixels by which a radius may be outside the range in scenes

# area / R^2, and distance of the centroid below the centre of the bounding box, over R
_AREA = {"square": 2.89, "triangle": 1.785, "plus": 2.2044, "ring": torch.pi * (1 - RING_HOLE**2)}
_DROP = {"square": 0.0, "triangle": 0.85 - 1.7 / 3, "plus": 0.0, "ring": 0.0}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The attributes of B images, and whether each image is one clean scene.

    values: B names for each attribute. valid: bool (B,).
    """

    values: dict[str, list[str]]
    valid: torch.Tensor

    def shows(self, row: int, stated: Mapping[str, str]) -> bool:
        """Whether an image has all of these values."""
        return all(self.values[name][row] == value for name, value in stated.items())


def _nearest(points: torch.Tensor, named: dict[str, tuple[float, ...]]) -> tuple[list[str], torch.Tensor]:
    """The nearest named point of each row of (B, D), and the distance to it (B,)."""
    gap = torch.cdist(points, torch.tensor(list(named.values()), dtype=points.dtype))
    best, index = gap.min(dim=1)
    names = list(named)
    return [names[i] for i in index.tolist()], best


def _object_colour(images: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """The object's colour (B, 3): the median of the 5 % of pixels that are farthest from the background."""
    pixels = images.flatten(2)  # (B, 3, P)
    gap = (pixels - background[:, :, None]).norm(dim=1)
    far = gap.topk(pixels.shape[2] // 20, dim=1).indices
    return pixels.gather(2, far[:, None, :].expand(-1, 3, -1)).median(dim=2).values


def _fit(shape: str, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit a shape to the mask's area and centroid: (overlap (B,), centre (B, 2), radius (B,), drawing (B, H, W))."""
    grid = torch.arange(SIZE, dtype=mask.dtype) + 0.5
    area = mask.sum(dim=(1, 2)).clamp_min(1.0)
    x = (mask.sum(dim=1) * grid).sum(dim=1) / area
    y = (mask.sum(dim=2) * grid).sum(dim=1) / area
    radius = (area / _AREA[shape]).sqrt()
    centre = torch.stack([x, y - _DROP[shape] * radius], dim=1)
    drawn = coverage(shape, centre[:, 0], centre[:, 1], radius)
    overlap = torch.minimum(drawn, mask).sum(dim=(1, 2)) / torch.maximum(drawn, mask).sum(dim=(1, 2)).clamp_min(1.0)
    return overlap, centre, radius, drawn


def read(images: torch.Tensor) -> Reading:
    """Read every attribute of B images, and whether each is one clean scene.

    An image is valid if its background and its object have a named colour, the background is uniform, the object is one
    of the shapes (by overlap) at a size that scenes have, and a redrawing of the scene explains all pixels.

    Args:
        images: (B, 3, SIZE, SIZE); values are clamped to [0, 1].

    Raises:
        ValueError: wrong size or number of channels.
    """
    if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"expected images of shape (B, 3, {SIZE}, {SIZE}), got {tuple(images.shape)}")
    images = images.detach().float().cpu().clamp(0.0, 1.0)
    c = CORNER
    corners = torch.cat(
        [
            images[:, :, rows, columns].flatten(2)
            for rows in (slice(0, c), slice(-c, None))
            for columns in (slice(0, c), slice(-c, None))
        ],
        dim=2,
    )
    background = corners.median(dim=2).values
    backgrounds, background_gap = _nearest(background, BACKGROUNDS)
    unevenness = (corners - background[:, :, None]).norm(dim=1).mean(dim=1)
    colour = _object_colour(images, background)
    colours, colour_gap = _nearest(colour, COLOURS)

    # soft mask: position of each pixel on the line from the background's colour to the object's
    line = colour - background
    along = ((images - background[:, :, None, None]) * line[:, :, None, None]).sum(dim=1)
    mask = along / line.square().sum(dim=1).clamp_min(1e-3)[:, None, None]
    mask = ((mask - MASK_MARGIN) / (1 - 2 * MASK_MARGIN)).clamp(0.0, 1.0)

    fits = [_fit(shape, mask) for shape in SHAPES]
    overlaps = torch.stack([fit[0] for fit in fits], dim=1)  # (B, K)
    overlap, best = overlaps.max(dim=1)
    row = torch.arange(len(images))
    centre, radius, drawn = (torch.stack([fit[n] for fit in fits], dim=1)[row, best] for n in (1, 2, 3))
    positions, _ = _nearest(centre - SIZE / 2, POSITIONS)

    redrawn = background[:, :, None, None] + drawn[:, None] * line[:, :, None, None]
    stray = (images - redrawn).norm(dim=1).mean(dim=(1, 2))
    valid = (
        (background_gap < COLOUR_TOLERANCE)
        & (colour_gap < COLOUR_TOLERANCE)
        & (unevenness < UNIFORM_TOLERANCE)
        & (stray < STRAY_TOLERANCE)
        & (overlap > MIN_OVERLAP)
        & (radius > RADIUS[0] - RADIUS_MARGIN)
        & (radius < RADIUS[1] + RADIUS_MARGIN)
    )
    shapes = [SHAPES[i] for i in best.tolist()]
    values = {"colour": colours, "shape": shapes, "position": positions, "background": backgrounds}
    return Reading(values=values, valid=valid)
