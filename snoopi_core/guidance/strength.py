"""How strongly NASA acts in each cross-attention (SNOOPI, arXiv 2412.02687, Algorithm 1: Z_NASA = Z+ - alpha Z-).

Dimensions: R positive rows, N image tokens, C = heads x head width. Norms and products are over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

# Measured on the bundled student (pytest tests/quality/test_inspect.py -rP). Sixteen informative negatives have a mean
# cosine of at most 0.51; the prompt said twice, which holds nothing new, has 0.78 to 0.91, the prompt itself 1.
CLOSE, SAME = 0.75, 0.95
"""A mean cosine from which a negative says little else than the prompt, and nothing else."""
# There, too: at its recommended alpha the mean change of a pair is at most 1.44; where the alpha is three times that it
# is at least 1.99, and half of the pictures are no valid ones.
STRONG = 1.5
"""A mean change from which pictures break."""
# No measurement: at 0 nothing of the prompt is left, and below NASA draws its opposite.
LEFT = 0.05
"""A mean share of the prompt's response that is as good as none."""


@dataclass
class Response:
    """Sums over everything that was seen in one layer: of Z+, of another Z, and of their products."""

    pos: torch.Tensor | float = 0.0
    other: torch.Tensor | float = 0.0
    dot: torch.Tensor | float = 0.0

    def add(self, z_pos: torch.Tensor, z_other: torch.Tensor) -> None:
        """Add what one call has, (R, N, C) each."""
        # Kept on their device: asking for a number would make the CPU wait for a GPU in every layer.
        z_pos, z_other = z_pos.detach().float(), z_other.detach().float()
        self.pos = _plus(self.pos, z_pos.square().sum())
        self.other = _plus(self.other, z_other.square().sum())
        self.dot = _plus(self.dot, (z_pos * z_other).sum())

    @property
    def ratio(self) -> float:
        """||Z|| / ||Z+||"""
        return _root(self.other) / _root(self.pos)

    @property
    def cosine(self) -> float:
        """<Z+, Z> / (||Z+|| ||Z||)"""
        return float(self.dot) / (_root(self.pos) * _root(self.other))


@dataclass
class LayerStrength:
    """One layer: the response Z- of each negative that acts there, by its number, and the result Z_NASA."""

    name: str
    negatives: dict[int, Response] = field(default_factory=dict)
    difference: Response = field(default_factory=Response)

    @property
    def change(self) -> float:
        """||Z_NASA - Z+|| / ||Z+||"""
        return self.difference.ratio

    @property
    def left(self) -> float:
        """<Z+, Z_NASA> / ||Z+||^2, what is left of the prompt's own response: 1 is all of it."""
        return 1.0 + self.difference.cosine * self.difference.ratio

    @property
    def is_finite(self) -> bool:
        """Whether all of this is numbers, which the others take for granted."""
        several = (self.difference, *self.negatives.values())
        return all(math.isfinite(float(x)) for each in several for x in (each.pos, each.other, each.dot))


def verdict(layers: Sequence[LayerStrength]) -> list[str]:
    """What the numbers of the layers mean, in sentences."""
    if broken := [layer.name for layer in layers if not layer.is_finite]:
        return [
            f"The model gives NaN or infinity in {len(broken)} of {len(layers)} cross-attentions, first in "
            f"{broken[0]}, so nothing can be said of the negative, and a picture would be black. Look first for what "
            "breaks the model without NASA Apply (a damaged file, a LoRA of another model); then try ComfyUI with "
            "--force-fp32."
        ]
    sentences, says_nothing = [], False
    numbers = sorted({number for layer in layers for number in layer.negatives})
    for number in numbers:
        cosine = _mean([layer.negatives[number].cosine for layer in layers if number in layer.negatives])
        which = "The negative" if numbers == [0] else f"Negative {number + 1}"
        shown = f"mean cosine {cosine:.2f}"
        if cosine >= SAME:
            says_nothing = True
            sentences.append(
                f"{which} is uninformative: it means what the prompt means ({shown}), so NASA only weakens the prompt. "
                "Name what should not appear, and nothing of the prompt."
            )
        elif cosine >= CLOSE:
            sentences.append(
                f"{which} may say little else than the prompt ({shown}; the bundled student's good ones have under "
                f"{CLOSE:g}, other models may have more). If it has no effect, name less of the prompt in it."
            )
        else:
            sentences.append(f"{which} is informative: it differs from the prompt ({shown}).")
    change, left = _mean([layer.change for layer in layers]), _mean([layer.left for layer in layers])
    shown = f"the layers change by {change:.0%} on average, {_percent(left)} of the prompt's own response is left"
    # Another alpha would not mend a negative that says nothing: then the one verdict is that.
    if not says_nothing and (change >= STRONG or left <= LEFT):
        sentences.append(f"Alpha is too strong: {shown}. Halve it.")
    else:
        sentences.append(f"Strength: {shown}.")
    return sentences


def table(layers: Sequence[LayerStrength]) -> str:
    """A line for each layer and negative; the share is the layer's part in the sum of all changes."""
    total = max(sum(layer.change for layer in layers), 1e-30)
    several = {number for layer in layers for number in layer.negatives} != {0}
    lines = [f"{'layer':<12} {'|Z-|/|Z+|':>10} {'cosine':>7} {'change':>7} {'share':>6} {'left':>6}"]
    for layer in layers:
        for place, (number, response) in enumerate(layer.negatives.items()):
            name = f"{layer.name} ({number + 1})" if several else layer.name
            line = f"{name:<12} {response.ratio:>10.2f} {round(response.cosine, 2) + 0.0:>7.2f}"
            if place == 0:  # of all negatives together
                line += f" {layer.change:>7.0%} {layer.change / total:>6.0%} {_percent(layer.left):>6}"
            lines.append(line)
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{round(value, 2) + 0.0:.0%}"  # no -0 %


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plus(total: torch.Tensor | float, more: torch.Tensor) -> torch.Tensor:
    """On the device of what came first: several GPUs have layers of the same name."""
    return total + (more.to(total.device) if isinstance(total, torch.Tensor) else more)


def _root(squares: torch.Tensor | float) -> float:
    # Never 0, so that a response of nothing but zeros has a ratio and a cosine.
    return max(float(squares), 1e-30) ** 0.5
