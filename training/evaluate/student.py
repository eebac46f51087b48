"""The student that is measured: our file, a run's folder, or a diffusers folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from snoopi_core.checkpoint import own_metadata
from snoopi_core.tensor_file import open_tensor_file
from training.backbone import Backbone, fingerprint, load_backbone
from training.config import find_file
from training.config.sources import exists
from training.loading import open_source
from training.steering import Method

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


def load_student(path: str, *, text_encoder: str = "", vae: str = "") -> Backbone:
    """Raises FileNotFoundError and ValueError as `load_backbone` and `find_student` do."""
    return load_backbone(find_student(path), text_encoder=text_encoder, vae=vae)


def recommended_alpha(path: str) -> float | None:
    """What the file says about NASA's strength; None where it says nothing, or is not ours."""
    found = find_file(find_student(path))
    if not exists(found):
        open_source(path)  # of the hub, or tells what was looked for
    metadata = own_metadata(open_tensor_file(found)) if found.is_file() else None
    return None if metadata is None else metadata.recommended_alpha


def parse_methods(words: list[str], path: str) -> list[Method]:
    """Methods in the order they were named, each once; "nasa" alone takes the file's recommended alpha.

    Raises:
        ValueError: a method is not known, or the file recommends no alpha.
    """
    methods = []
    for word in words:
        if word == "nasa":
            if (alpha := recommended_alpha(path)) is None:
                raise ValueError(
                    f"{path} recommends no alpha for NASA; name one, such as nasa:0.3, or measure it with "
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
