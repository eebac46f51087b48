"""Which alpha to begin with: what was measured for this file, else what the paper has for this kind of model."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ..alpha import paper_alpha, paper_alphas
from .attachment import get_metadata
from .families import family_of


def recommended_alpha(patcher: ModelPatcher) -> str:
    """In words, for a person who chooses; "" where nobody has measured any."""
    metadata = get_metadata(patcher)
    if metadata is not None and metadata.recommended_alpha is not None:
        return f"its file recommends {metadata.recommended_alpha:g}"
    paper = paper_alphas(family_of(patcher.model).kind(patcher.model))
    return "" if paper is None else f"the paper uses {paper}"


def auto_alpha(patcher: ModelPatcher) -> tuple[float, str]:
    """One alpha, and whose it is.

    Raises:
        ValueError: nobody has measured any.
    """
    metadata = get_metadata(patcher)
    if metadata is not None and metadata.recommended_alpha is not None:
        return metadata.recommended_alpha, "measured for this file"
    family = family_of(patcher.model)
    kind = family.kind(patcher.model)
    is_pg_sb = metadata is not None and metadata.recipe is not None
    found = paper_alpha(kind, is_pg_sb=is_pg_sb)
    if found is None:
        known = paper_alphas(kind)
        have = f"the paper only swept it, {known}" if known else "the paper has none"
        raise ValueError(
            f'alpha_mode is "auto", but nobody has measured an alpha for this model ({family.name}): its file names '
            f'none, and {have}. Choose "as set" and begin with alpha 0.3; NASA Scale Sweep shows which is right'
        )
    alpha, name = found
    if not is_pg_sb:
        return alpha, f"a guess: the lowest published for {kind} networks"
    return alpha, f"the paper's for {name.partition(',')[0]}"
