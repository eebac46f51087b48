"""How strongly NASA acts in each cross-attention (SNOOPI, arXiv 2412.02687, Algorithm 1: Z_NASA = Z+ - alpha Z-).

Dimensions: R positive rows, N image tokens, C = heads x head width. Norms and products are over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

# Measured on two students, the shapes' and the avatars' (pytest tests/quality/test_inspect.py -rP). Informative
# negatives have a mean cosine of at most 0.51 and 0.34; the prompt repeated twice, which adds nothing, has 0.78 to 0.91
# and 0.94 to 0.96, the prompt itself 1.
CLOSE_COSINE, SAME_COSINE = 0.75, 0.95
"""Mean cosines from which a negative is nearly the same as the prompt, and exactly the same."""
# Measured there too: at the recommended alpha the mean change of a pair is at most 1.44 and 1.07; at three times that
# alpha at least 1.99, with half of the pictures broken, and 2.08, with the prompt lost in one of five.
STRONG_CHANGE = 1.5
"""Mean change from which pictures break."""
# Not measured: at 0 nothing of the prompt is left, and below 0 NASA draws its opposite.
NOTHING_LEFT = 0.05
"""Mean share of the prompt's response that counts as none."""


@dataclass
class Response:
    """Running sums over one layer: ||Z+||^2, ||Z||^2 of another response Z, and <Z+, Z>."""

    pos: torch.Tensor | float = 0.0
    other: torch.Tensor | float = 0.0
    dot: torch.Tensor | float = 0.0

    def add(self, z_pos: torch.Tensor, z_other: torch.Tensor) -> None:
        """Add the responses of one call, (R, N, C) each."""
        # The sums stay on their device: reading a number would make the CPU wait for the GPU in every layer.
        z_pos, z_other = z_pos.detach().float(), z_other.detach().float()
        self.pos = _add(self.pos, z_pos.square().sum())
        self.other = _add(self.other, z_other.square().sum())
        self.dot = _add(self.dot, (z_pos * z_other).sum())

    @property
    def is_zero(self) -> bool:
        """Whether Z is zero everywhere."""
        return float(self.other) == 0.0

    @property
    def ratio(self) -> float:
        """||Z|| / ||Z+||; NaN if Z+ is zero."""
        return _divide(_norm(self.other), _norm(self.pos))

    @property
    def cosine(self) -> float:
        """<Z+, Z> / (||Z+|| ||Z||); NaN if one of them is zero, which has no direction."""
        return _divide(float(self.dot), _norm(self.pos) * _norm(self.other))


@dataclass
class LayerStrength:
    """One layer: the response Z- of each negative that acts there, by its number, and the difference Z_NASA - Z+."""

    name: str
    negatives: dict[int, Response] = field(default_factory=dict)
    difference: Response = field(default_factory=Response)

    @property
    def change(self) -> float:
        """||Z_NASA - Z+|| / ||Z+||"""
        return self.difference.ratio

    @property
    def left(self) -> float:
        """<Z+, Z_NASA> / ||Z+||^2, the share of the prompt's own response that is left; 1 is all of it."""
        return 1.0 + _divide(float(self.difference.dot), float(self.difference.pos))

    @property
    def is_finite(self) -> bool:
        """Whether all sums are finite; the other properties assume it."""
        several = (self.difference, *self.negatives.values())
        return all(math.isfinite(float(x)) for each in several for x in (each.pos, each.other, each.dot))


def strength_table(layers: Sequence[LayerStrength]) -> str:
    """A line for each layer and negative; `share` is the layer's part in the sum of all changes."""
    total = sum(layer.change for layer in layers if math.isfinite(layer.change))
    several = {number for layer in layers for number in layer.negatives} != {0}
    lines = [f"{'layer':<12} {'|Z-|/|Z+|':>10} {'cosine':>7} {'change':>7} {'share':>6} {'left':>6}"]
    for layer in layers:
        for place, (number, response) in enumerate(layer.negatives.items()):
            name = f"{layer.name} ({number + 1})" if several else layer.name
            line = f"{name:<12} {_number(response.ratio):>10} {_number(response.cosine):>7}"
            if place == 0:  # these numbers are for all negatives together
                share = _divide(layer.change, total)
                line += f" {percent(layer.change):>7} {percent(share):>6} {percent(layer.left):>6}"
            lines.append(line)
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0


def percent(value: float) -> str:
    """Such as "21%"; "-" for NaN."""
    return "-" if math.isnan(value) else f"{round(value, 2) + 0.0:.0%}"


def mean_of(values: Sequence[float]) -> float:
    """The mean of the layers where the value is defined; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return _divide(sum(defined), len(defined))


def _divide(value: float, by: float) -> float:
    return value / by if by else math.nan


def _add(total: torch.Tensor | float, more: torch.Tensor) -> torch.Tensor:
    """Sum on the device of `total`: with several GPUs, layers of the same name lie on different devices."""
    return total + (more.to(total.device) if isinstance(total, torch.Tensor) else more)


def _norm(squares: torch.Tensor | float) -> float:
    return float(squares) ** 0.5
