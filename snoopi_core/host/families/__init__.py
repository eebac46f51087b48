"""Model families that NASA can steer: one file each, and this registry."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

from comfy.model_base import BaseModel

from ...networks import why_refused
from .base import Call, Context, Family, LayerKey, LayerObserver, Options, Term, has_values, network_of

__all__ = [
    "FAMILIES", "Call", "Context", "Family", "LayerKey", "LayerObserver", "Options", "Term", "family_of", "has_values",
]  # fmt: skip

_MODULES = {
    "unet": ("UNetFamily",),
    "pixart": ("PixArtFamily",),
    "hunyuan_dit": ("HunyuanDiTFamily",),
    "wan": ("WanFamily", "CausalWanFamily"),
    "ltxv": ("LTXVFamily", "LTXAVFamily"),
    "cosmos": ("CosmosPredict2Family", "AnimaFamily"),
    "kandinsky5": ("Kandinsky5Family",),
    "stable_audio": ("StableAudioFamily",),
    "ace_step": ("ACEStepFamily", "ACEStep15Family"),
    "joint.flux": ("FluxFamily", "ChromaFamily"),
    "joint.sd3": ("SD3Family",),
    "joint.qwen_image": ("QwenImageFamily",),
    "joint.mage_flow": ("MageFlowFamily",),
    "joint.lumina": ("LuminaFamily",),
    "joint.hunyuan_video": ("HunyuanVideoFamily",),
    "joint.aura_flow": ("AuraFlowFamily",),
    "joint.omnigen2": ("OmniGen2Family",),
    "joint.boogu": ("BooguFamily",),
    "joint.cogvideo": ("CogVideoXFamily",),
    "joint.pixeldit": ("PixelDiTFamily",),
    "joint.krea2": ("Krea2Family",),
    "joint.ideogram4": ("Ideogram4Family",),
    "joint.lens": ("LensFamily",),
    "joint.joyimage": ("JoyImageFamily",),
    "joint.mochi": ("MochiFamily",),
    "joint.hidream": ("HiDreamFamily",),
    "joint.minimax_h3": ("MiniMaxH3Family",),
}


def _families() -> Iterator[Family]:
    for module, names in _MODULES.items():
        try:
            found = importlib.import_module(f".{module}", __name__)
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("comfy.ldm."):
                logging.debug("SNOOPI: this ComfyUI does not have %s", ", ".join(names))
                continue
            # If a host version moves one network, only that family is lost, not the whole pack.
            logging.warning("SNOOPI: NASA does not support %s in this ComfyUI (%s)", ", ".join(names), error)
            continue
        for name in names:
            family = getattr(found, name)()
            # Some networks are newer than this ComfyUI.
            if getattr(family, "networks", True):
                yield family


FAMILIES: tuple[Family, ...] = tuple(_families())


def family_of(model: BaseModel) -> Family:
    """The family of a host model.

    Raises:
        ValueError: unsupported model; lists the supported families.
    """
    for family in FAMILIES:
        if family.matches(model):
            return family
    network = type(network_of(model)).__name__
    raise ValueError(
        f"NASA cannot steer this model: {type(model.model_config).__name__} (network {network}): "
        f"{why_refused(network, type(model).__name__)}. Supported: {'; '.join(family.name for family in FAMILIES)}"
    )
