"""Checks of the CLIP models that a recipe names: whether open_clip has such a model, and such weights of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from training.config.recipe import Recipe
from training.config.sources import exists, find_file
from training.console import long_step

Problem = tuple[tuple[str, ...], str]
_ELSEWHERE = ("hf-hub:", "local-dir:")


@dataclass(frozen=True, kw_only=True)
class _Named:
    """model_key, weights_key: the settings. needs: who needs it, and its setting. off: how to do without it."""

    model_key: str
    model: str
    weights_key: str
    weights: str
    needs: tuple[str, str]
    off: str


def unknown_clip_models(recipe: Recipe) -> Iterator[Problem]:
    """Names of models that open_clip does not have, or that it is not installed."""
    named = _named(recipe)
    package = find_spec("open_clip") if named else None  # found, not imported, which takes seconds
    for one in named:
        if package is None or package.origin is None:
            what, key = one.needs
            yield (key,), f"{what} needs open_clip_torch, which is not installed{one.off}"
            continue
        known = sorted(path.stem for path in Path(package.origin).with_name("model_configs").glob("*.json"))
        if known and one.model not in known and not one.model.startswith(_ELSEWHERE):
            near = difflib.get_close_matches(one.model, known, n=3)
            yield (
                (one.model_key,),
                f"{one.model_key}: open_clip has no {one.model!r}; similar: {', '.join(near) or 'none'}{one.off}",
            )


def unknown_clip_tags(recipe: Recipe) -> Iterator[Problem]:
    """A tag of CLIP's weights that does not exist. Imports open_clip, which takes seconds."""
    for one in _named(recipe):
        file = find_file(one.weights)
        if (exists(file) and file.is_file()) or one.model.startswith(_ELSEWHERE):
            continue
        with long_step(f"starting open_clip, to look up {one.weights_key}", at_once=False):
            import open_clip
        if one.weights not in (tags := open_clip.list_pretrained_tags_by_model(one.model)):
            yield (
                (one.weights_key, one.model_key),
                f"{one.weights_key}: {one.weights!r} is neither a file nor a tag of {one.model} in open_clip; "
                f"available: {', '.join(tags) or 'none'}{one.off}",
            )


def _named(recipe: Recipe) -> list[_Named]:
    clip, found = recipe.clip, []
    if clip.weight > 0:
        found.append(
            _Named(
                model_key="clip.model",
                model=clip.model,
                weights_key="clip.pretrained",
                weights=clip.pretrained,
                needs=("the CLIP loss", "clip.weight"),
                off="; clip.weight=0 turns the CLIP loss off",
            )
        )
    evaluation = recipe.evaluation
    if not evaluation.every:
        return found
    for used, prefix, what in (
        ("clip" in evaluation.metrics, "clip", "the CLIP score"),
        ("removal" in evaluation.metrics and evaluation.judge == "clip", "judge", "evaluate.judge clip"),
    ):
        if used:
            found.append(
                _Named(
                    model_key=f"evaluate.{prefix}_model",
                    model=getattr(evaluation, f"{prefix}_model"),
                    weights_key=f"evaluate.{prefix}_weights",
                    weights=getattr(evaluation, f"{prefix}_weights"),
                    needs=(what, "evaluate.metrics"),
                    off="; evaluate.metrics and evaluate.judge say what is measured",
                )
            )
    return found
