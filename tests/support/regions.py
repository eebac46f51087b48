"""Prompts for a part of the picture or of the sampling run: by the host's nodes, and blended by formula in fp64.

The host predicts each prompt on its own (an area on its crop) and takes the mean, weighted by masks and strengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from host_nodes import run_node
from reference import Condition, Reference, Subtraction
from unets import conditioning

Area = tuple[int, int, int, int]
"""Height, width, y, x in latent pixels."""
FUZZ = 8  # the host fades areas in over so many pixels, at most a quarter of the area


@dataclass(frozen=True, eq=False)
class Part:
    """One prompt, and where and when it acts; `mask` is (h, w) in [0, 1]; `strength` is the area's."""

    condition: Condition
    area: Area | None = None
    mask: torch.Tensor | None = None
    mask_strength: float = 1.0
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def is_active(self, t: int) -> bool:
        """The host's percentages are of timesteps from 999 down, both ends included."""
        return (1.0 - self.end) * 999.0 <= t <= (1.0 - self.start) * 999.0


def host_conditioning(parts: Sequence[Part]) -> list:
    """CONDITIONING from the host's own nodes."""
    combined: list | None = None
    for part in parts:
        one = conditioning(part.condition)
        if part.area is not None:
            height, width, y, x = (8 * side for side in part.area)
            size = {"height": height, "width": width, "y": y, "x": x}
            one = run_node("ConditioningSetArea", conditioning=one, strength=part.strength, **size)
        elif part.strength != 1.0:
            one = run_node("ConditioningSetAreaStrength", conditioning=one, strength=part.strength)
        if part.mask is not None:
            settings = {"mask": part.mask, "strength": part.mask_strength, "set_cond_area": "default"}
            one = run_node("ConditioningSetMask", conditioning=one, **settings)
        if (part.start, part.end) != (0.0, 1.0):
            one = run_node("ConditioningSetTimestepRange", conditioning=one, start=part.start, end=part.end)
        combined = (
            one if combined is None else run_node("ConditioningCombine", conditioning_1=combined, conditioning_2=one)
        )
    assert combined is not None
    return combined


def blended(
    reference: Reference, x: torch.Tensor, t: int, parts: Sequence[Part], subtractions: Sequence[Subtraction] = ()
) -> torch.Tensor:
    """x0 (B, C, h, w) in fp64: the mean of the parts' own predictions, weighted by `weight`.

    Masks of `subtractions` are as large as x.
    """
    total, weights = torch.zeros_like(x, dtype=torch.float64), torch.full_like(x, 1e-37, dtype=torch.float64)
    for part in parts:
        if part.is_active(t):
            height, width, top, left = part.area or (*x.shape[2:], 0, 0)
            crop = (..., slice(top, top + height), slice(left, left + width))
            own = weight(part, x.shape[2:])
            here = [each if each.mask is None else replace(each, mask=each.mask[crop]) for each in subtractions]
            total[crop] += own * reference.x0(x[crop], t, part.condition, here)
            weights[crop] += own
    return total / weights


def weight(part: Part, size: Sequence[int]) -> torch.Tensor:
    """The weight of a part, (h, w) of its own area."""
    height, width, top, left = part.area or (*size, 0, 0)
    if part.mask is not None:
        return part.mask.double()[top : top + height, left : left + width] * part.mask_strength * part.strength
    edges = [
        _faded(length, start > 0, start + length < whole)
        for length, start, whole in ((height, top, size[0]), (width, left, size[1]))
    ]
    return part.strength * edges[0][:, None] * edges[1][None, :]


def _faded(length: int, at_start: bool, at_end: bool) -> torch.Tensor:
    """1, with linear ramps at ends inside the picture."""
    steps = min(FUZZ, length // 4)
    line = torch.ones(length, dtype=torch.float64)
    ramp = (torch.arange(steps, dtype=torch.float64) + 1) / max(steps, 1)
    if at_start:
        line[:steps] *= ramp
    if at_end:
        line[length - steps :] *= ramp.flip(0)
    return line


def with_opposites(parts: Sequence[Part], others: Sequence[Part]) -> list[Part]:
    """`parts`, and those that the host adds: for each area only in `others`, a copy of the other part with the first
    prompt of `parts`. (For parts without areas, or with those of `others`.)
    """
    out = list(parts)
    for other in others:
        if other.area is not None and other.area not in [part.area for part in out]:
            out.append(replace(other, condition=out[0].condition))
    return out
