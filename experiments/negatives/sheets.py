"""Pictures beside the numbers: the paper's Figures 3 and 5, on the pairs that were measured."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.negatives.results import Negatives
from experiments.negatives.settings import STRENGTHS
from experiments.shapes.measure import Pair
from experiments.shapes.sampling import OneStep
from experiments.shapes.sheet import contact_sheet
from training.models.backbone import Backbone
from training.models.guidance.methods import Method

_SCALE = 2


def draw_sheets(model: Backbone, found: Negatives, pairs: list[Pair], folder: Path) -> None:
    """Write results-alpha-sheet.png and results-methods.png: every second pair a row, a column for each method."""
    plain, seed = Method("none"), found.protocol["seeds"][0]
    alphas = [Method("nasa", alpha) for alpha in found.strengths("nasa")]
    best = [Method.parse(found.best(name).partition(" ")[2]) for name in STRENGTHS]
    for name, methods in (("results-alpha-sheet", alphas), ("results-methods", best)):
        rows = [
            (
                f"{pair.prompt}  -  {pair.negative}",
                torch.cat([_picture(model, pair, method, seed) for method in (plain, *methods)]),
            )
            for pair in pairs[::2]
        ]
        contact_sheet(rows, folder / f"{name}.png", scale=_SCALE)


def _picture(model: Backbone, pair: Pair, method: Method, seed: int) -> torch.Tensor:
    """(1, 3, 64, 64)"""
    return OneStep(model=model, method=method.name, scale=method.strength)([pair.prompt], [seed], pair.negative)
