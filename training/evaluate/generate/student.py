"""The student that is measured: our file (also a LoRA), a run's folder, or a diffusers folder."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from snoopi_core.formats.checkpoint import MODEL_KEY, BaseMetadata, find_metadata
from snoopi_core.formats.lora import LORA_KEY, find_lora_metadata, read_updates
from snoopi_core.formats.tensor_file import open_tensor_file
from snoopi_core.presets import Preset
from training.config import find_file
from training.models.backbone import Backbone, fingerprint
from training.models.guidance.methods import Method
from training.models.loading import load_backbone, open_model

EXPORT = Path("export", "student.safetensors")


def find_student(path: str) -> str:
    """The file or folder to load: of a run, what it has exported.

    Raises:
        FileNotFoundError: the run has exported nothing yet.
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
    """A student; one that is a LoRA on its base model, by default the one that it was trained on.

    Raises:
        FileNotFoundError, ValueError: as `load_backbone` and `find_student`; or a LoRA's base is not to be had, or is
            another kind of model.
    """
    path = find_student(path)
    key, about = own_about(path)
    if key != LORA_KEY:
        if base:
            raise ValueError(f"--base {base}: {path} is no LoRA of this project, it needs no other model")
        return load_backbone(path, text_encoder=text_encoder, vae=vae)
    base = base or about.base
    try:
        model = load_backbone(base, about.prediction_type, text_encoder=text_encoder, vae=vae)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is a LoRA, and its base is not there: {error}; name it with --base") from error
    if (model.family.name, model.schedule) != (about.family, about.schedule):
        raise ValueError(
            f"{path} is a LoRA of {about.family} with {about.schedule}, {base} is {model.family.name} with "
            f"{model.schedule}; name the model that it was trained on with --base"
        )
    weights = model.network.state_dict()  # the network's own memory
    for name, update in read_updates(open_tensor_file(find_file(path)), about.family, weights).items():
        weights[name] += update
    return replace(model, recipe=about.recipe, source=path)


def own_about(path: str) -> tuple[str, BaseMetadata | None]:
    """Under which key a file of ours says what it is, and that; "" and None for all else."""
    found = find_file(find_student(path))
    if not found.is_file():
        open_model(path)  # a folder or of the hub; tells what is wrong with it
        return "", None
    file = open_tensor_file(found)
    if (metadata := find_metadata(file)) is not None:
        return MODEL_KEY, metadata
    if (lora := find_lora_metadata(file)) is not None:
        return LORA_KEY, lora
    return "", None


def recommended_alpha(path: str) -> float | None:
    """What the file says about NASA's strength; None where it says nothing, or is not ours."""
    about = own_about(path)[1]
    return None if about is None else about.recommended_alpha


def parse_methods(words: list[str], path: str, preset: Preset | None = None) -> list[Method]:
    """Methods in the order they were named, each once; "nasa" alone takes the preset's or the file's recommended alpha.

    Raises:
        ValueError: a method is not known, or the file recommends no alpha.
    """
    methods = []
    for word in words:
        if word == "nasa":
            alpha = preset.nasa_alpha if preset is not None else recommended_alpha(path)
            if alpha is None:
                whose = path if preset is None else f"preset {preset.name!r}"
                raise ValueError(
                    f"{whose} recommends no alpha for NASA; name one, such as nasa:0.3, or measure it with "
                    "`python -m training.evaluate alpha`"
                )
            word = f"nasa:{alpha}"
        methods.append(Method.parse(word))
    return list(dict.fromkeys(methods))


def weights_of(model: Backbone) -> str:
    """SHA-256 of the network's, the VAE's and CLIP's weights; not T5's, which are 19 GB and nobody trains."""
    parts = [model.network, model.vae]
    if model.text_encoder is not None and model.family.name == "unet":
        parts.append(model.text_encoder)
    return hashlib.sha256("".join(map(fingerprint, parts)).encode()).hexdigest()
