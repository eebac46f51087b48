"""The alpha to start with: what the file recommends, else the paper's for this kind of model."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...guidance.alpha import describe_paper_alphas, paper_alpha
from ...guidance.methods import NASA, Method
from ...presets import AUTO, find_preset
from ..families import family_of
from ..loading.attachment import get_metadata


def recommended_alpha(patcher: ModelPatcher, method: Method = NASA) -> str:
    """A recommendation in words, for the log; "" if none is known."""
    if method is not NASA:
        return "; ".join(filter(None, (f"published strengths of {method.name}: {method.usual}", _note(patcher))))
    metadata = get_metadata(patcher)
    if metadata is not None and metadata.recommended_alpha is not None:
        return _of_file(metadata.recommended_alpha)
    family = family_of(patcher.model)
    paper = describe_paper_alphas(family.kind(patcher.model))
    return family.alpha_note if paper is None else f"the paper uses {paper}"


def describe_manual_alpha(patcher: ModelPatcher, alpha: float, method: Method = NASA) -> str:
    """Text that the node shows beside a manually set alpha; mentions the file's alpha if it differs."""
    if method is not NASA:
        return "; ".join(filter(None, (f"as set; published: {method.usual}", _note(patcher))))
    metadata = get_metadata(patcher)
    if metadata is None or metadata.recommended_alpha in (None, alpha):
        return "; ".join(filter(None, ("as set", _note(patcher))))
    return f"as set; {_of_file(metadata.recommended_alpha)}"


def _of_file(alpha: float) -> str:
    return f"its file recommends {alpha:g}{'' if alpha else ', no negative prompt'}"


def _note(patcher: ModelPatcher) -> str:
    return family_of(patcher.model).alpha_note


def known_alpha(patcher: ModelPatcher, preset: str = AUTO) -> tuple[float, str] | None:
    """The alpha of this model and its source: its file; the paper's value for the preset by which it is sampled; or the
    paper's value for PG-SB students of its kind, which have one step.
    """
    metadata = get_metadata(patcher)
    if metadata is not None and metadata.recommended_alpha is not None:
        return metadata.recommended_alpha, "from the model's file"
    if chosen := find_preset(preset):
        alpha = chosen.nasa_alpha
        return None if alpha is None else (alpha, f"the paper's for {chosen.name.partition(',')[0]}")
    if metadata is None or not metadata.recipe or len(metadata.recipe.timesteps) > 1:
        return None
    found = paper_alpha(family_of(patcher.model).kind(patcher.model), is_pg_sb=True)
    return found and (found[0], f"the paper's for {found[1].partition(',')[0]}")


def auto_alpha(patcher: ModelPatcher, method: Method = NASA) -> tuple[float, str]:
    """An alpha for this model, and its source. 0 if its file recommends no negative prompt.

    Raises:
        ValueError: no alpha is known, or the method is not NASA.
    """
    if method is not NASA:
        raise ValueError(
            f'alpha_mode is "auto", but only NASA has known alphas, and method is {method.name}. Choose "as set"; '
            f"published strengths of {method.name}: {method.usual}"
        )
    if known := known_alpha(patcher):
        alpha, source = known
        return alpha, source if alpha else f'{source}: no negative prompt is recommended. "as set" uses another alpha'
    family = family_of(patcher.model)
    kind = family.kind(patcher.model)
    found = paper_alpha(kind, is_pg_sb=False)
    if found is None:
        swept = describe_paper_alphas(kind)
        have = f"the paper only swept it, {swept}" if swept else "the paper has none"
        start = " and start with alpha 0.3; NASA Scale Sweep shows which is right"
        advice = f": {family.alpha_note}" if family.alpha_note else start
        raise ValueError(
            f'alpha_mode is "auto", but no alpha is known for this model ({family.name}): its file has none, and '
            f'{have}. Choose "as set"{advice}'
        )
    return found[0], f"a guess: the lowest published for {kind} networks"
