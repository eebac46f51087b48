"""The negative prompt: from the host's CONDITIONING to the one embedding that NASA subtracts."""

from __future__ import annotations

from typing import Any

import torch

Conditioning = list[tuple[torch.Tensor, dict[str, Any]]]

_NOT_YET = {
    "area": "an area",
    "mask": "a mask",
    "hooks": "hooks",
    "start_percent": "a timestep range (use start_percent and end_percent of NASA Apply)",
    "end_percent": "a timestep range (use start_percent and end_percent of NASA Apply)",
    "clip_start_percent": "a schedule",
}


def plain_negative(conditioning: Conditioning, context_width: int) -> torch.Tensor:
    """The embedding of a plain negative prompt, (Bn, T, C).

    What does not concern cross-attention (pooled output, ControlNet, sizes) is not used.

    Raises:
        ValueError: several prompts, one with an area, mask or schedule, or an embedding of another width than the
            model's cross-attention takes, which happens with another model's text encoder.
    """
    if len(conditioning) != 1:
        raise ValueError(
            f"negative holds {len(conditioning)} prompts, NASA Apply takes exactly one; "
            "for several, chain one NASA Apply node for each"
        )
    embedding, settings = conditioning[0]
    found = [words for key, words in _NOT_YET.items() if settings.get(key) is not None]
    if settings.get("strength", 1.0) != 1.0:
        found.append("a strength (use alpha of NASA Apply)")
    if found:
        raise ValueError(
            f"negative has {', '.join(dict.fromkeys(found))}; NASA Apply takes a plain prompt: "
            "connect a CLIP Text Encode node directly"
        )
    if embedding.ndim != 3 or embedding.shape[-1] != context_width:
        raise ValueError(
            f"negative is {embedding.shape[-1]} wide, the model's cross-attention takes {context_width}: "
            "it was made by another model's text encoder. Encode it with the CLIP that belongs to this model"
        )
    return embedding.detach()
