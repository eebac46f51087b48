"""Families of networks that can be distilled: how each is called, and its layout in a single file."""

from __future__ import annotations

from training.models.families.base import Family
from training.models.families.pixart import PixArt
from training.models.families.unet import UNet

FAMILIES: dict[str, Family] = {family.name: family for family in (UNet(), PixArt())}

__all__ = ["FAMILIES", "Family"]
