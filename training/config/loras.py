"""LoRAs in a recipe: a file and its strength, `path:strength`."""

from __future__ import annotations

import math


def split_strength(lora: str) -> tuple[str, float]:
    """The path and the strength of a LoRA, `path:strength`; the strength is 1 if there is none.

    Raises:
        ValueError: the strength is 0 or not a finite number.
    """
    path, _, tail = lora.rpartition(":")
    if not path or tail.endswith(".safetensors"):  # a Windows path has a colon, too
        return lora, 1.0
    try:
        strength = float(tail)
    except ValueError:
        strength = math.nan
    if strength == 0 or not math.isfinite(strength):
        raise ValueError(f"the strength of {lora!r} is {tail!r}, expected a number other than 0, such as 0.8")
    return path, strength


def check_loras(loras: tuple[str, ...]) -> tuple[str, ...]:
    """The same LoRAs. Raises ValueError if one is not a .safetensors file, or has no valid strength."""
    for lora in loras:
        if not split_strength(lora)[0].endswith(".safetensors"):
            raise ValueError(f"{lora!r} is not the name of a .safetensors file, with or without :STRENGTH after it")
    return loras
