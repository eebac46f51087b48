"""Checks before a run that what its evaluation needs is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from training.config import Recipe, RecipeError
from training.evaluate.judges.load import ZERO_SHOT, load_judge
from training.evaluate.metrics.open_clip_model import check_open_clip
from training.evaluate.metrics.weights import INCEPTION, find_weights
from training.evaluate.sets.pairs import load_pairs


def check_evaluation(recipe: Recipe) -> None:
    """Check, without loading a large model, that what `recipe.evaluate` needs is on this machine or on the hub.

    Raises:
        RecipeError: it is not; the message says what to install or to name.
    """
    section = recipe.evaluation
    try:
        if "clip" in section.metrics:
            check_open_clip(section.clip_model, section.clip_weights, option="evaluate.clip_weights")
        if {"fid", "prc"}.intersection(section.metrics):
            find_inception(section.inception_weights)
        if "removal" in section.metrics:
            load_pairs(section.pairs)
            if section.judge == ZERO_SHOT:
                check_open_clip(section.judge_model, section.judge_weights, option="evaluate.judge_weights")
            else:
                load_judge(section.judge, "", "", torch.device("cpu"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"evaluate.every={section.every}: {error}") from error


def find_inception(given: str) -> Path:
    """Raises: MissingWeights, ValueError, as `find_weights`."""
    return find_weights(replace(INCEPTION, option="evaluate.inception_weights"), given)
