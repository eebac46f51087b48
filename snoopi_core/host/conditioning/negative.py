"""The negative prompt: from the host's CONDITIONING to the prompts that NASA subtracts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .window import Window

Conditioning = list[tuple[torch.Tensor, dict[str, Any]]]

# What has a place in a picture has one in NASA Apply too: its mask.
_REFUSED = {
    "area": "an area (connect a mask to NASA Apply's own mask input instead)",
    "mask": "a mask (connect it to NASA Apply's own mask input instead)",
    "gligen": "GLIGEN boxes (connect the negative from before the GLIGEN node)",
    "hooks": "hooks (connect the negative from before the hook node)",
    "clip_start_percent": "a schedule of hooks (connect the negative from before the hook node)",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Negative:
    """One prompt of a negative conditioning.

    embedding: as the text encoder returned it, (Bn, T, C).
    settings: what came with it: attention masks, a second encoder's output and the like, for the host to prepare.
    strength: its share among several prompts that are active together.
    window: when it is active.
    """

    embedding: torch.Tensor
    settings: dict[str, Any]
    strength: float
    window: Window


def read_negative(conditioning: Conditioning) -> tuple[Negative, ...]:
    """The prompts of a conditioning: one, or several as Conditioning (Combine) and timestep ranges make them.

    Raises:
        ValueError: none, an embedding that is none, or a prompt with an area, mask, boxes, hooks, or a strength that
            could have no effect.
    """
    if not conditioning:
        raise ValueError("negative holds no prompt; connect a CLIP Text Encode node")
    return tuple(_read(embedding, settings, alone=len(conditioning) == 1) for embedding, settings in conditioning)


def _read(embedding: torch.Tensor, settings: dict[str, Any], *, alone: bool) -> Negative:
    found = [words for key, words in _REFUSED.items() if settings.get(key) is not None]
    strength = settings.get("strength", 1.0)
    if alone and strength != 1.0:
        found.append("a strength (use alpha of NASA Apply)")
    if found:
        raise ValueError(f"negative must be a plain prompt, but has {', '.join(dict.fromkeys(found))}")
    if strength < 0.0:
        raise ValueError(f"negative has strength {strength:g}, expected 0 or more")
    if not isinstance(embedding, torch.Tensor) or embedding.ndim != 3:
        got = tuple(embedding.shape) if isinstance(embedding, torch.Tensor) else type(embedding).__name__
        raise ValueError(f"negative is {got}, expected an embedding (batch, tokens, width) from CLIP Text Encode")
    window = Window(start_percent=settings.get("start_percent", 0.0), end_percent=settings.get("end_percent", 1.0))
    return Negative(embedding=embedding.detach(), settings=dict(settings), strength=float(strength), window=window)


def check_width(negative: Negative, expected: int, got: int | None = None) -> None:
    """Tell of an embedding that another model's text encoder made.

    Raises:
        ValueError: it is not `expected` wide.
    """
    got = negative.embedding.shape[-1] if got is None else got
    if got != expected:
        raise ValueError(
            "negative was made by another model's text encoder: encode it with the CLIP that belongs to this model. "
            f"It is {got} wide, this model takes {expected}"
        )
