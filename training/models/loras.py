"""LoRAs that are merged into a teacher, so that a person distils the mixture of models that they use.

A LoRA changes a weight to W + strength * alpha / r * up @ down. Names are those of kohya's scripts, of diffusers, of
peft and of ComfyUI. Every key of a file must find its weight, otherwise the file is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snoopi_core.formats.layouts import text_encoder_rename, unet_rename
from snoopi_core.formats.lora import find_lora_metadata
from snoopi_core.formats.tensor_file import StateDict, open_tensor_file
from training.models.text_pair import TextEncoderPair

log = logging.getLogger(__name__)
_HALVES = (  # (down, up)
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
)
_TEXT = ("lora_te", "text_encoder")
_PEFT_KEY, _NOT_PLAIN = "lora_adapter_metadata", ("alpha_pattern", "use_rslora", "use_dora")
_PEFT_NAMES, _PEFT_CONFIG = ("base_model.model.", "unet.base_model.model."), "adapter_config.json"
_KINDS = "Only plain LoRAs can be merged (pairs of lora_down and lora_up, or of lora_A and lora_B)"


@torch.no_grad()
def merge_lora(path: Path, strength: float, network: nn.Module, text_encoder: nn.Module | None) -> None:
    """Add a LoRA to the weights of a network and its text encoder, in place.

    Args:
        text_encoder: None if the run has none in memory; the LoRA's keys for it are left out then.

    Raises:
        ValueError: it is no plain LoRA, or does not fit the model. CheckpointError, a ValueError, if it is damaged.
    """
    file = open_tensor_file(path, "LoRA")
    if find_lora_metadata(file) is not None:
        raise ValueError("it is a student of this trainer: a teacher needs many steps")
    rest: StateDict = file.read()
    has_text = any(name.startswith(_TEXT) for name in rest)
    if text_encoder is None:
        rest = {name: weight for name, weight in rest.items() if not name.startswith(_TEXT)}
    alphas, changed = _header_alphas(_settings(file.metadata, path, rest)), 0
    for weight, names in _targets(network, text_encoder):
        for name in names:
            halves = next((pair for pair in _HALVES if name + pair[0] in rest and name + pair[1] in rest), None)
            if halves is None:
                continue
            down, up = (rest.pop(name + end).float() for end in halves)
            alpha = rest.pop(f"{name}.alpha", None)
            scale = alphas(name) if alpha is None else _number(name, alpha)
            _add(name, weight, down, up, strength * (1.0 if scale is None else scale / len(down)))
            changed += 1
    if rest:
        raise ValueError(f"{len(rest)} of its keys belong to no weight of the teacher, first {min(rest)}. {_KINDS}")
    if not changed and not has_text:
        raise ValueError(f"it changes no weight of the teacher. {_KINDS}")
    log.info("teacher: %s at %g, %d weights changed", path.name, strength, changed)


def changes_text(path: Path) -> bool:
    """Whether a LoRA changes a text encoder, so embeddings of prompts depend on it."""
    return any(name.startswith(_TEXT) for name in open_tensor_file(path, "LoRA").names)


def _add(name: str, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float) -> None:
    fits = down.ndim >= 2 and up.ndim >= 2 and up.flatten(1).shape == (weight.shape[0], len(down))
    if not fits or down[0].numel() != weight[0].numel():
        raise ValueError(
            f"{name} has down {tuple(down.shape)} and up {tuple(up.shape)}, which do not fit the teacher's weight "
            f"{tuple(weight.shape)}: a LoRA fits the kind of model that it was trained on"
        )
    if not weight.is_meta:  # a dry run reads no weights
        weight += (scale * (up.flatten(1) @ down.flatten(1))).reshape(weight.shape).to(weight)


def _targets(network: nn.Module, text_encoder: nn.Module | None) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Each weight, and the names that files have for its module."""
    is_unet = hasattr(network, "down_blocks")
    single_file = unet_rename(network.config) if is_unet else str
    for key, weight in _matrices(network):
        module, other = key.removesuffix(".weight"), single_file(key).removesuffix(".weight")
        names = [f"lora_unet_{module}", f"lora_transformer_{module}", f"lora_unet_{other}"]
        names = [name.replace(".", "_") for name in names]
        for prefix in ("", "unet.", "transformer.", "base_model.model.", "unet.base_model.model."):
            names.append(prefix + module)
        yield weight, list(dict.fromkeys([*names, f"diffusion_model.{other}"]))
    for number, encoder in enumerate(_encoders(text_encoder)):
        kohya = [f"lora_te{number + 1}_", *(["lora_te_"] if not isinstance(text_encoder, TextEncoderPair) else [])]
        diffusers = "text_encoder_2." if number else "text_encoder."
        for key, weight in _matrices(encoder):
            module = key.removesuffix(".weight")
            module = module if module == "text_projection" else text_encoder_rename(module)
            yield weight, [prefix + module.replace(".", "_") for prefix in kohya] + [diffusers + module]


def _encoders(text_encoder: nn.Module | None) -> list[nn.Module]:
    if isinstance(text_encoder, TextEncoderPair):
        return [text_encoder.first, text_encoder.second]
    return [] if text_encoder is None else [text_encoder]


def _matrices(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return (
        (key, weight) for key, weight in module.state_dict().items() if key.endswith(".weight") and weight.ndim >= 2
    )


def _number(name: str, alpha: torch.Tensor) -> float:
    if alpha.numel() != 1 or not torch.isfinite(alpha.float()).all():
        raise ValueError(f"{name}.alpha is {tuple(alpha.shape)} of {alpha.dtype}, expected one finite number")
    return float(alpha)


def _settings(header: Mapping[str, str], path: Path, weights: StateDict) -> str:
    """peft's settings, as JSON: in the header (diffusers from 0.34 on), or in the file that peft itself writes beside a
    LoRA.

    Raises:
        ValueError: the LoRA has peft's names and no alpha, and that file is missing.
    """
    peft = [name for name in weights if name.startswith(_PEFT_NAMES)]
    if _PEFT_KEY in header or not peft or any(name.endswith(".alpha") for name in peft):
        return header.get(_PEFT_KEY, "{}")
    try:
        return path.with_name(_PEFT_CONFIG).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"it has peft's names, and its strength (lora_alpha) is in {_PEFT_CONFIG}, which peft writes beside it; "
            "put that file into the same folder"
        ) from None


def _header_alphas(written: str) -> Callable[[str], float | None]:
    """alpha by a module's name, from peft's settings (JSON); None without any."""
    try:
        settings: dict[str, Any] = json.loads(written)
        odd = [key for key, value in settings.items() if value and key.endswith(_NOT_PLAIN)]
        scales = {key.removesuffix("lora_alpha"): float(v) for key, v in settings.items() if key.endswith("lora_alpha")}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"peft's settings of it cannot be read ({error})") from error
    if odd:
        raise ValueError(f"peft's settings of it have {', '.join(odd)[:200]}. {_KINDS}")
    return lambda name: next((alpha for prefix, alpha in scales.items() if name.startswith(prefix)), None)
