"""Weights that metrics need and that we may not ship: their names, sizes and sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from training.config import find_file


class NotRun(FileNotFoundError):
    """A metric cannot run because something is missing; the message says what, and how to get it."""


class MissingWeights(NotRun):
    """Weights are missing and cannot be downloaded; the message gives their size and where to put them."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A weights file, from `hub` (a model id) or `address`. option: of the command line, to name a local copy."""

    what: str
    file: str
    size: str
    option: str
    hub: str = ""
    address: str = ""


INCEPTION = Known(
    what="Inception v3 of TensorFlow, which FID is defined by",
    file="weights-inception-2015-12-05-6726825d.pth",
    size="96 MB",
    option="--inception-weights",
    address="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
)
HPS: dict[str, Known] = {
    version: Known(
        what=f"HPSv2's weights, {version}",
        file=file,
        size="2 GB",
        option=f"--hps-{version}-weights",
        hub="xswu/HPSv2",
    )
    for version, file in (("v2.0", "HPS_v2_compressed.pt"), ("v2.1", "HPS_v2.1_compressed.pt"))
}
# of open_clip's models, by (model, tag)
_CLIP_SIZES = {
    ("ViT-g-14", "laion2b_s12b_b42k"): "5.5 GB",
    ("ViT-H-14", "laion2b_s32b_b79k"): "3.9 GB",
    ("ViT-L-14", "laion2b_s32b_b82k"): "1.7 GB",
    ("ViT-B-32", "laion2b_s34b_b79k"): "0.6 GB",
}


def find_weights(known: Known, given: str | None) -> Path:
    """The file `given`, else the one in torch's or the hub's cache, else downloaded from the hub.

    Raises:
        MissingWeights: it was not found and could not be downloaded.
        ValueError: the file `given` does not exist.
    """
    if given:
        if not (path := find_file(given)).is_file():
            raise ValueError(f"{known.option} {given}: no such file; expected {known.file}, {known.size}")
        return path
    cached = Path(torch.hub.get_dir(), "checkpoints", known.file)
    if cached.is_file():
        return cached
    source, reason = known.address, "not downloaded by this program"
    if known.hub:
        try:
            return Path(hf_hub_download(known.hub, known.file))
        except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
            source, reason = f"the hub's {known.hub}", str(error).strip().splitlines()[0][:200]
    raise MissingWeights(
        f"{known.what}: {known.file} ({known.size}) is missing; get it from {source} ({reason}), and put it at "
        f"{cached}, or name the file with {known.option}"
    )


def missing_clip(model: str, tag: str, option: str, reason: str) -> MissingWeights:
    """The error for open_clip weights that could not be downloaded."""
    size = f" ({_CLIP_SIZES[model, tag]})" if (model, tag) in _CLIP_SIZES else ""
    return MissingWeights(
        f"CLIP weights {tag!r} of {model}{size} are missing: {reason.strip('. ')}. They are downloaded from the hub "
        f"if it can be reached; otherwise name a local file with {option}"
    )
