"""Merge two students by averaging their weights.

SwiftBrush v2 merges a student trained in full with one trained as a LoRA:

    W = w W_full + (1 - w) (W_base + alpha / r * up @ down),   w = 0.5
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from snoopi_core.formats.checkpoint import BaseMetadata, CheckpointError, Provenance, read_checkpoint, write_checkpoint
from snoopi_core.formats.lora import LoraMetadata, find_lora_metadata, read_updates
from snoopi_core.formats.tensor_file import open_tensor_file
from training.config import find_file
from training.models.families import FAMILIES
from training.models.loading import load_matching_weights, open_model
from training.trainer.export import provenance
from training.trainer.run_folder.lora_base import find_base


def merge(full: Path, lora: Path, out: Path, *, base: str = "", weight: float = 0.5, title: str = "") -> Path:
    """Write the merged student as a checkpoint file, with the text encoder and VAE of `full`.

    Args:
        full: a student's export.
        lora: the export of a student that was trained as a LoRA.
        base: the model that the LoRA was trained on; empty = the one named in the LoRA, see `find_base`.
        weight: w, the weight of the fully trained student.

    Raises:
        FileNotFoundError, ValueError: a file cannot be used, or the two are not the same kind of student.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight}, expected a number from 0 to 1")
    full, lora = find_file(str(full)), find_file(str(lora))
    if find_lora_metadata(open_tensor_file(full, "student")) is not None:
        raise CheckpointError(f"{full.name} is a LoRA; expected the export of a student trained in full, then the LoRA")
    checkpoint = read_checkpoint(full)
    lora_file = open_tensor_file(lora, "LoRA")
    about, other = checkpoint.metadata, find_lora_metadata(lora_file)
    if other is None:
        raise CheckpointError(
            f"{lora.name} is not a LoRA made by `python -m training.export`; expected the export of a student that was "
            "trained with student.train=lora, given after the one trained in full"
        )
    if other.base_loras:
        raise ValueError(
            f"{lora.name} was trained on {other.base} with LoRAs merged into it ({', '.join(other.base_loras)}), which "
            "cannot be done here: merge them into the base with another program and train on that file"
        )
    if problems := differences(about, other):
        raise ValueError(f"{full.name} and {lora.name} are not the same kind of student: {'; '.join(problems)}")
    files = open_model(str(full))
    network = files.read_network()
    weights = _base_weights(base or (find_base(lora, other.base) if other.base else ""), network, other, files.family)
    for name, update in read_updates(lora_file, about.family, weights).items():
        weights[name] += update
    mean = {name: torch.lerp(weights[name], own, weight) for name, own in network.state_dict().items()}
    metadata = about.model_copy(
        update={"title": title or f"{about.title} + {other.title}", "provenance": _provenance(about, other, weight)}
    )
    unet = FAMILIES[about.family].to_single_file(mean, network.config)
    return write_checkpoint(out, dataclasses.replace(checkpoint, metadata=metadata, unet=unet))


def differences(full: BaseMetadata, lora: BaseMetadata) -> list[str]:
    """Properties that two students must share but do not. A file without a one-step recipe is not a student."""
    one, other = _kind(full), _kind(lora)
    return [
        f"{key} is {one.get(key)} and {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if not _equal(one.get(key), other.get(key))
    ] or ([] if full.recipe else ["neither has a one-step recipe"])


def _kind(about: BaseMetadata) -> dict[str, Any]:
    return about.model_dump(include={"family", "prediction_type", "schedule"}) | (
        {} if about.recipe is None else about.recipe.model_dump()
    )


def _equal(one: Any, other: Any) -> bool:
    return math.isclose(one, other, rel_tol=1e-6) if isinstance(one, float) and other else one == other


def _base_weights(base: str, network: torch.nn.Module, lora: LoraMetadata, family: str) -> dict[str, torch.Tensor]:
    if not base:
        raise ValueError("the LoRA does not name the model that it was trained on; give it with --base")
    try:
        return load_matching_weights(base, network, family, lora.prediction_type, "the full student's")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; the LoRA was trained on it: give its path with --base") from error


def _provenance(full: BaseMetadata, lora: BaseMetadata, weight: float) -> Provenance:
    shares = [
        f"{share:g} x {student.title!r} (step {student.provenance.step}, recipe {student.provenance.recipe_sha256})"
        for share, student in ((weight, full), (1 - weight, lora))
    ]
    return provenance(step=full.provenance.step, notes=f"merged: {' + '.join(shares)}")
