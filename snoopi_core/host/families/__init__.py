"""The registry of families that NASA can steer."""

from __future__ import annotations

from comfy.model_base import BaseModel

from .base import Attachment, Family, Options, Steering
from .unet import UNetFamily

__all__ = ["FAMILIES", "Attachment", "Family", "Options", "Steering", "family_of"]

FAMILIES: tuple[Family, ...] = (UNetFamily(),)


def family_of(model: BaseModel) -> Family:
    """The family of a host model.

    Raises:
        ValueError: none; names the model and lists what is supported.
    """
    for family in FAMILIES:
        if family.matches(model):
            return family
    network = type(model.diffusion_model).__name__
    raise ValueError(
        f"NASA cannot steer this model: {type(model).__name__} (network {network}). It needs separate cross-attention "
        f"layers that it knows how to reach. Supported: {'; '.join(family.name for family in FAMILIES)}"
    )
