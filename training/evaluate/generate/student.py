"""Loads the model to be measured: a file of this project (also a LoRA), a run's folder, or a diffusers folder."""

from __future__ import annotations

import hashlib
import logging
import sys
from dataclasses import replace
from pathlib import Path

from snoopi_core.formats.checkpoint import MODEL_KEY, BaseMetadata, find_metadata
from snoopi_core.formats.lora import LORA_KEY, LoraMetadata, find_lora_metadata, read_updates
from snoopi_core.formats.tensor_file import open_tensor_file
from snoopi_core.presets import Preset
from training.config import find_file
from training.models.backbone import Backbone, fingerprint
from training.models.guidance.methods import METHODS, Method
from training.models.loading import load_backbone, merge_loras, open_model
from training.trainer.run_folder.lora_base import find_base, find_base_loras

log = logging.getLogger(__name__)
EXPORT = Path("export", "student.safetensors")


def find_student(path: str) -> str:
    """`path`, or the exported student if it is a run's folder.

    Raises:
        FileNotFoundError: the run has not exported a student yet.
    """
    found = find_file(path)
    if not (found / "checkpoints").is_dir():
        return path
    if not (found / EXPORT).is_file():
        raise FileNotFoundError(
            f"{path} is a run that has not exported its student yet ({EXPORT} is missing); make one with "
            f"`python -m training.export {path} --out student.safetensors`, and give that file"
        )
    return str(found / EXPORT)


def load_student(path: str, *, text_encoder: str = "", vae: str = "", base: str = "") -> Backbone:
    """Load a model; a LoRA is merged into `base`, by default the model that it was trained on.

    Raises:
        FileNotFoundError, ValueError: as `load_backbone` and `find_student`; or the base of a LoRA is missing or a
            different kind of model.
    """
    path = find_student(path)
    key, about = read_about(path)
    if key != LORA_KEY:
        if base:
            raise ValueError(f"--base {base}: {path} is not a LoRA of this project and needs no base; leave out --base")
        return load_backbone(path, text_encoder=text_encoder, vae=vae)
    named, base = base, base or find_base(find_file(path), about.base)
    try:
        model = load_backbone(base, about.prediction_type, text_encoder=text_encoder, vae=vae)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is a LoRA, and its base is not there: {error}; name it with --base") from error
    if (model.family.file_family, model.schedule) != (about.family, about.schedule):
        raise ValueError(
            f"{path} is a LoRA of {about.family} with {about.schedule}, {base} is {model.family.name} with "
            f"{model.schedule}; name the model that it was trained on with --base"
        )
    _merge_base_loras(path, about, model, named)
    weights = model.network.state_dict()  # shares the network's memory
    for name, update in read_updates(open_tensor_file(find_file(path)), about.family, weights).items():
        weights[name] += update
    return replace(model, recipe=about.recipe, source=path)


def _merge_base_loras(path: str, about: LoraMetadata, model: Backbone, named: str) -> None:
    """Merge into a LoRA's base what was merged into it for the training; `named`: the base, if the user named it."""
    if about.base_loras and fingerprint(model.network) == about.base_sha256:
        log.info("%s has its LoRAs merged in already", named or about.base)
        return
    merge_loras(find_base_loras(find_file(path), about.base_loras), model)
    if named and about.base_loras:
        log.warning(
            "%s was trained on %s with LoRAs merged in (%s), so they were merged into --base %s, too. If that has them "
            "already, name the model without them",
            *(path, about.base, ", ".join(about.base_loras), named),
        )


def read_about(path: str) -> tuple[str, BaseMetadata | None]:
    """The metadata of a file of this project, with the key it is stored under; "" and None for other models.

    Raises:
        FileNotFoundError, ValueError: there is no usable model at `path`.
    """
    found = find_file(find_student(path))
    if not found.is_file():
        open_model(path)  # raises if it is not a model
        return "", None
    file = open_tensor_file(found)
    if (metadata := find_metadata(file)) is not None:
        return MODEL_KEY, metadata
    if (lora := find_lora_metadata(file)) is not None:
        return LORA_KEY, lora
    return "", None


def recommended_alpha(path: str) -> float | None:
    """The strength of NASA that a file of this project recommends, if any."""
    about = read_about(path)[1]
    return None if about is None else about.recommended_alpha


def parse_methods(words: list[str], path: str, preset: Preset | None = None) -> list[Method]:
    """Methods in the given order, without repetitions; "nasa" alone takes the alpha of the preset or the file.

    Raises:
        ValueError: a method is not known, or no alpha is recommended.
    """
    methods = []
    for word in words:
        if word in METHODS and METHODS[word].recommended:
            alpha = preset.nasa_alpha if preset is not None else recommended_alpha(path)
            source = path if preset is None else f"preset {preset.name!r}"
            if alpha is None:
                raise ValueError(
                    f"{source} recommends no alpha for NASA; name one, such as {word}:0.3, or measure it with "
                    "`python -m training.evaluate alpha`"
                )
            print(f"method {word}: alpha {alpha:g}, from {source}", file=sys.stderr)
            word = f"{word}:{alpha}"
        methods.append(Method.parse(word))
    return list(dict.fromkeys(methods))


def weights_hash(model: Backbone) -> str:
    """SHA-256 of the weights of network, VAE and CLIP; T5 is left out, it has 19 GB and is never trained."""
    parts = [model.network, model.vae]
    if model.text_encoder is not None and model.family.name == "unet":
        parts.append(model.text_encoder)
    return hashlib.sha256("".join(map(fingerprint, parts)).encode()).hexdigest()
