"""Load models as backbones, from any supported format, and describe their text encoders."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import nn

from training.config import Teacher, find_file, split_strength
from training.models.backbone import Backbone
from training.models.families import FAMILIES, Family
from training.models.loading.find import find_folder, open_model
from training.models.loading.folder import read_text_encoder, read_vae
from training.models.loading.model_files import errors_naming
from training.models.loras import changes_text, merge_lora
from training.models.text_cache import TextCache

log = logging.getLogger(__name__)

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 20  # how much of a weights file is hashed; further training changes all of it


def load_teacher(section: Teacher, *, t5: torch.dtype | None = torch.bfloat16, text_cache: str = "") -> Backbone:
    """The teacher of a recipe, with its LoRAs; see `load_backbone`.

    With `text_cache`, the folder of a cache, T5 and SDXL's text encoders are not loaded.

    Raises:
        FileNotFoundError, ValueError: see `load_backbone` and `TextCache.open`.
    """
    t5 = None if text_cache else t5
    backbone = load_backbone(
        section.path, section.prediction_type, text_encoder=section.text_encoder, vae=section.vae, t5=t5
    )
    merge_loras(section.loras, backbone)
    if not text_cache:
        return backbone
    cache = TextCache.open(Path(text_cache).expanduser(), describe_encoder(section, backbone))
    return replace(backbone, text_cache=cache)


def merge_loras(loras: Sequence[str], backbone: Backbone) -> None:
    """Merge LoRAs, `path:strength`, into a model in place; see `merge_lora`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or is no LoRA of this model; the message names it.
    """
    for path, strength in map(split_strength, loras):
        with errors_naming(path):
            file = find_file(path)
            merge_lora(file, strength, backbone.network, backbone.text_encoder)
            if backbone.family.leaves_out_text and changes_text(file):
                log.warning(
                    "%s changes the text encoder, which a student's file of this family does not hold: in ComfyUI, "
                    "load this LoRA for CLIP, too",
                    file.name,
                )


def load_backbone(
    path: str,
    prediction_type: str = "auto",
    *,
    text_encoder: str = "",
    vae: str = "",
    t5: torch.dtype | None = torch.bfloat16,
) -> Backbone:
    """Load a model, in evaluation mode, without gradients; in fp32, except T5.

    Args:
        path: diffusers folder, hub id or single .safetensors file.
        prediction_type: overrides what the files say, unless it is "auto".
        text_encoder, vae: diffusers folders or hub ids to take these parts from instead.
        t5: dtype of PixArt's text encoder, which is 19 GB in fp32; None leaves out PixArt's and SDXL's text encoders
            and their tokenizers.

    Raises:
        FileNotFoundError: nothing is there; the message lists where it was looked for.
        ValueError: the model is not supported or damaged, or lacks a part that no setting names.
    """
    files = open_model(path)
    family = FAMILIES[files.family]
    with_text = not family.leaves_out_text or t5 is not None
    absent = [] if files.read_text_encoder or text_encoder or not with_text else ["text_encoder"]
    absent += [] if files.read_vae or vae else ["vae"]
    if absent:
        raise ValueError(
            f"{path} has no {' and no '.join(absent)}; name a diffusers folder or hub id that has: "
            f"{' and '.join(f'teacher.{part}' for part in absent)} in a recipe, "
            f"{' and '.join('--' + part.replace('_', '-') for part in absent)} of training.export"
        )
    with errors_naming(path):
        network = files.read_network()
    encoder = tokenizer = None
    if with_text:
        with errors_naming(text_encoder or path):
            if text_encoder:
                encoder, tokenizer = read_text_encoder(find_folder(text_encoder), t5, family=family.name)
            else:
                encoder, tokenizer = files.read_text_encoder(t5)
        _check_pooled(family, network, encoder)
    with errors_naming(vae or path):
        decoder = read_vae(find_folder(vae)) if vae else files.read_vae()
    for module in (network, decoder, encoder):
        if module is not None:
            module.eval().requires_grad_(False)
    return Backbone(
        network=network,
        vae=decoder,
        schedule=files.schedule,
        prediction_type=files.prediction_type if prediction_type == "auto" else prediction_type,
        source=path,
        family=family,
        text_encoder=encoder,
        tokenizer=tokenizer,
        recipe=files.recipe,
        notes=files.notes,
    )


def _check_pooled(family: Family, network: nn.Module, encoder: nn.Module) -> None:
    """Check the width of the pooled embedding, which tells SDXL from its refiner. Raises: ValueError."""
    expected = family.pooled_width(network.config)
    if expected is not None and (got := encoder.config.projection_dim) != expected:
        raise ValueError(
            f"the text encoder's pooled embedding has width {got}, the network expects {expected}, as Stable Diffusion "
            "XL with six sizes; its refiner, which takes five, cannot be distilled"
        )


def describe_encoder(section: Teacher, backbone: Backbone) -> dict[str, Any]:
    """The properties that must be equal for embeddings to be interchangeable.

    family, max_tokens, width (E), pooled (P, or None) and loras (a hash of those that change it, or None) are always
    compared. weights maps the encoder's files on this machine to a hash of their size and of 64 samples; it is empty if
    there are none. source is only used in messages.
    """
    return {
        "family": backbone.family.name,
        "max_tokens": backbone.family.max_tokens(backbone.tokenizer),
        "width": backbone.family.sizes(backbone.network.config)[0],
        "loras": _loras_of_text(section),
        "pooled": backbone.family.pooled_width(backbone.network.config),
        "weights": {name: _sampled_hash(path) for name, path in _weights_files(section).items()},
        "source": section.text_encoder or section.path,
    }


def _loras_of_text(section: Teacher) -> str | None:
    """A hash of the LoRAs that change the text encoder, and their strengths; None without any."""
    pairs = [(find_file(path), strength) for path, strength in map(split_strength, section.loras)]
    hashes = [f"{_sampled_hash(path)}:{strength:g}" for path, strength in pairs if changes_text(path)]
    return hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else None


def _weights_files(section: Teacher) -> dict[str, Path]:
    """The encoder's weights files that are on this machine; those of SDXL's second encoder have its folder's name."""
    name = section.text_encoder or section.path
    place = find_file(name)
    if place.is_file():
        return {place.name: place}
    if not place.is_dir():
        try:
            place = Path(snapshot_download(name, local_files_only=True))
        except (OSError, HfHubHTTPError, HFValidationError):
            return {}
    first, second = place / "text_encoder", place / "text_encoder_2"
    found = {path.name: path for path in sorted((first if first.is_dir() else place).glob("*.safetensors"))}
    return found | {f"{second.name}/{path.name}": path for path in sorted(second.glob("*.safetensors"))}


def _sampled_hash(path: Path) -> str:
    size = path.stat().st_size
    content = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for n in range(_SAMPLES):
            file.seek(max(0, (size - _SAMPLE_BYTES) * n // (_SAMPLES - 1)))
            content.update(file.read(_SAMPLE_BYTES))
    return content.hexdigest()
