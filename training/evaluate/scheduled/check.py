"""Checks before a run that what its evaluation needs is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from training.config import Prompts, Recipe, RecipeError
from training.config.evaluation import Evaluate
from training.evaluate.judges.load import ZERO_SHOT, load_judge
from training.evaluate.judges.verdict import Judge
from training.evaluate.metrics.open_clip_model import check_open_clip
from training.evaluate.metrics.weights import INCEPTION, find_weights
from training.evaluate.sets.pairs import Pair, load_pairs
from training.prompts import different_prompts


def check_evaluation(recipe: Recipe) -> None:
    """Check, without loading a large model, that what `recipe.evaluate` needs is on this machine or on the hub.

    Raises:
        RecipeError: it is not; the message says what to install or to name.
    """
    section = recipe.evaluation
    checks: list[Callable[[], object]] = []
    if section.prompts and set(section.metrics) - {"removal"}:
        checks.append(lambda: prompts_of_evaluation(recipe, 1))
    if "clip" in section.metrics:
        checks.append(lambda: check_open_clip(section.clip_model, section.clip_weights, option="evaluate.clip_weights"))
    if {"fid", "prc"}.intersection(section.metrics):
        checks.append(lambda: find_inception(section.inception_weights))
    if "removal" in section.metrics:
        checks.append(lambda: _check_removal(section))
    found = []
    for check in checks:
        try:
            check()
        except (OSError, ValueError) as error:
            found.append(f"evaluate.every={section.every}: {error}")
    if found:
        raise RecipeError("\n".join(found))


def prompts_of_evaluation(recipe: Recipe, count: int) -> list[str]:
    """The first different prompts of evaluate.prompts, read as prompts.source is, in order; by default the run's own.

    Raises:
        FileNotFoundError, ValueError: as `different_prompts`.
    """
    source, own = recipe.evaluate.prompts, recipe.prompts
    if not source:
        return different_prompts(own, recipe.seed, count)
    column = "" if Path(source).suffix.lower() == ".txt" else own.column  # lines of text have no columns
    section = Prompts(source=source, column=column, split=own.split, shuffle_block=1)
    try:
        return different_prompts(section, recipe.seed, count)
    except (OSError, ValueError) as error:
        raise ValueError(f"evaluate.prompts, read with prompts.column and prompts.split: {error}") from error


def _check_removal(section: Evaluate) -> None:
    pairs = load_pairs(section.pairs)
    if section.judge == ZERO_SHOT:
        check_open_clip(section.judge_model, section.judge_weights, option="evaluate.judge_weights")
    else:
        try_judge(load_judge(section.judge, "", "", torch.device("cpu")), pairs, side=64)


def try_judge(judge: Judge, pairs: Sequence[Pair], *, side: int) -> None:
    """Judge a grey picture for each pair.

    Raises:
        ValueError: the judge does not know what a pair is about.
    """
    grey = Image.new("RGB", (side, side), "grey")
    for pair in pairs:
        try:
            judge([grey], pair)
        except ValueError as error:
            raise ValueError(f"{error}; give evaluate.pairs that evaluate.judge can judge, or another judge") from error


def find_inception(given: str) -> Path:
    """Raises: MissingWeights, ValueError, as `find_weights`."""
    return find_weights(replace(INCEPTION, option="evaluate.inception_weights"), given)
