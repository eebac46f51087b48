"""The negative prompt: read the prompts that NASA subtracts from the host's CONDITIONING."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .window import Window

Conditioning = list[tuple[torch.Tensor, dict[str, Any]]]

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

    embedding: the text encoder's output, (Bn, T, C).
    settings: the conditioning's other values, such as attention masks or a second encoder's output.
    strength: its share among several prompts that are active together.
    window: when it is active.
    is_zero: whether the embedding is all zeros, as from ConditioningZeroOut. Many networks do not respond to it.
    """

    embedding: torch.Tensor
    settings: dict[str, Any]
    strength: float
    window: Window
    is_zero: bool


def read_negative(conditioning: Conditioning) -> tuple[Negative, ...]:
    """The prompts of a conditioning: one, or several from Conditioning (Combine) or timestep ranges.

    Raises:
        ValueError: no prompt, an invalid embedding, or a prompt with an area, mask, boxes, hooks, or an unusable
            strength.
    """
    if not conditioning:
        raise ValueError("negative contains no prompt; connect a CLIP Text Encode node")
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
    return Negative(
        embedding=embedding.detach(),
        settings=dict(settings),
        strength=float(strength),
        window=window,
        # Read once, here: in a sampling run it would make the CPU wait for the GPU.
        is_zero=not bool(embedding.any()),
    )


def check_width(negative: Negative, expected: int) -> None:
    """Check the embedding's width.

    Raises:
        ValueError: it differs from `expected`, so another model's text encoder made the embedding.
    """
    if (got := negative.embedding.shape[-1]) != expected:
        raise ValueError(
            "negative was made by another model's text encoder: encode it with this model's own CLIP. Its width is "
            f"{got}, expected {expected}"
        )
