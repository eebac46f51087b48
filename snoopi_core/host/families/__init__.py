"""The registry of families that NASA can steer."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

from comfy.model_base import BaseModel

from .base import Call, Context, Family, Key, Options, Term, Watch, network_of

__all__ = ["FAMILIES", "Call", "Context", "Family", "Key", "Options", "Term", "Watch", "family_of"]

_MODULES = {
    "unet": ("UNetFamily",),
    "pixart": ("PixArtFamily",),
    "hunyuan_dit": ("HunyuanDiTFamily",),
    "wan": ("WanFamily",),
    "ltxv": ("LTXVFamily",),
    "cosmos": ("CosmosPredict2Family", "AnimaFamily"),
}


def _families() -> Iterator[Family]:
    for module, names in _MODULES.items():
        try:
            found = importlib.import_module(f".{module}", __name__)
        except ImportError as error:
            # A host that moves one network should cost that family, not the pack.
            logging.warning("SNOOPI: NASA does not support %s in this ComfyUI (%s)", ", ".join(names), error)
            continue
        yield from (getattr(found, name)() for name in names)


FAMILIES: tuple[Family, ...] = tuple(_families())


def family_of(model: BaseModel) -> Family:
    """The family of a host model.

    Raises:
        ValueError: none; names the model and lists what is supported.
    """
    for family in FAMILIES:
        if family.matches(model):
            return family
    network = type(network_of(model)).__name__
    raise ValueError(
        f"NASA cannot steer this model: {type(model.model_config).__name__} (network {network}). It needs "
        "cross-attention layers that take the text alone; models with joint attention (SD3, Flux and their relatives) "
        f"have none. Supported: {'; '.join(family.name for family in FAMILIES)}"
    )
