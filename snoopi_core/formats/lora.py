"""Student LoRA files: `write_lora` writes them, and the loader applies them to a base model.

Other programs can read them too: weights have kohya's names for a UNet (`lora_unet_...`) and diffusers' for a PixArt
transformer (`transformer....lora_A.weight`), with `alpha` beside each pair. Besides `snoopi.format`, the header has

    snoopi.lora     JSON of `LoraMetadata`

so the student's recipe travels with the LoRA and overrides the base model's.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from .checkpoint import BaseMetadata, build_header, cpu_copy, parse_header
from .tensor_file import CheckpointError, StateDict, TensorFile, save_atomically

LORA_KEY = "snoopi.lora"
Adapters = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Module name in the diffusers network -> (down, up): (r, C_in) and (C_out, r), or convolutions of these widths."""

_PEFT = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight")


class LoraMetadata(BaseMetadata):
    """Metadata of a student LoRA.

    base, base_loras: names of the model that it was trained on, and of the LoRAs merged into it, as `name:strength`.
    base_sha256: of that model's names and weights, as the trainer computes it; "" in older files. All are for
    information only: other checkpoints of the family can be used, too.
    """

    role: Literal["student_lora"] = "student_lora"
    base: str = ""
    base_loras: tuple[str, ...] = ()
    base_sha256: str = ""


def write_lora(
    path: str | os.PathLike[str],
    metadata: LoraMetadata,
    adapters: Adapters,
    *,
    alpha: float,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a student LoRA atomically.

    The student's weight is W + alpha / r * up @ down.

    Args:
        path: ends in `.safetensors`; missing folders are created.
        adapters: see `Adapters`; `adapters_from_peft` reads them from a peft state dict.
        alpha: peft's `lora_alpha`, the same for all modules (PAPER Section 3: rank 64, alpha 128).

    Raises:
        CheckpointError: no adapters, shapes that do not match, another suffix, or a weight that is not finite.
    """
    path = Path(path)
    if not adapters:
        raise CheckpointError(f"{path.name}: the LoRA has no adapters, expected at least one pair")
    if not (math.isfinite(alpha) and alpha > 0):
        raise CheckpointError(f"{path.name}: alpha is {alpha}, expected a positive number")
    tensors: StateDict = {}
    for module, (down, up) in adapters.items():
        if down.ndim != up.ndim or down.shape[0] != up.shape[1]:
            raise CheckpointError(
                f"{path.name}: {module} has down {tuple(down.shape)} and up {tuple(up.shape)}, "
                "expected (r, in) and (out, r)"
            )
        down_name, up_name, alpha_name = _names(metadata.family, module)
        tensors[down_name], tensors[up_name] = cpu_copy(down, dtype), cpu_copy(up, dtype)
        tensors[alpha_name] = torch.tensor(float(alpha), dtype=dtype)
    return save_atomically(path, tensors, build_header(metadata, LORA_KEY))


def _names(family: str, module: str) -> tuple[str, str, str]:
    """Names of down, up and alpha in a file."""
    if family == "unet":
        name = f"lora_unet_{module.replace('.', '_')}"
        return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"
    return f"transformer.{module}.lora_A.weight", f"transformer.{module}.lora_B.weight", f"transformer.{module}.alpha"


def read_updates(file: TensorFile, family: str, weights: Mapping[str, torch.Tensor]) -> StateDict:
    """The weight updates of a SNOOPI LoRA, alpha / r * up @ down, in fp32, by weight name.

    Args:
        weights: the network's weights under diffusers' names.

    Raises:
        CheckpointError: names or shapes that do not belong to this network.
    """
    rest, updates = file.read(), {}
    for name, weight in weights.items():
        module, _, kind = name.rpartition(".")
        names = _names(family, module)
        if kind != "weight" or names[0] not in rest:
            continue
        try:
            down, up, alpha = (rest.pop(part).float() for part in names)
            update = alpha / len(down) * (up.flatten(1) @ down.flatten(1))
            updates[name] = update.reshape(weight.shape)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{file.path.name}: its update of {module} does not fit ({error})") from error
    if rest:
        raise CheckpointError(
            f"{file.path.name}: {len(rest)} weight(s) have no place in the network, first {min(rest)}"
        )
    return updates


def adapters_from_peft(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The (down, up) pairs of a peft state dict, `get_peft_model_state_dict(model)`.

    Raises:
        ValueError: keys that are not LoRA weights, or a pair with only one half.
    """
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, weight in weights.items():
        if not (match := _PEFT.fullmatch(key)):
            raise ValueError(f"{key!r} is not a LoRA weight of peft, expected names such as 'to_q.lora_A.weight'")
        found.setdefault(match["module"], {})[match["side"]] = weight
    if halves := [module for module, sides in found.items() if len(sides) != 2]:
        raise ValueError(f"{len(halves)} module(s) have only one of lora_A and lora_B, first {halves[0]}")
    return {module: (sides["A"], sides["B"]) for module, sides in found.items()}


def find_lora_metadata(file: TensorFile) -> LoraMetadata | None:
    """Metadata of a SNOOPI LoRA; None for other LoRAs.

    Raises:
        CheckpointError: written by a newer version, or invalid metadata.
    """
    return parse_header(file, LORA_KEY, LoraMetadata)
