"""Weights that measuring needs and nobody can ship: what they are called, how large they are, where they come from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from training.config import find_file


class NotRun(FileNotFoundError):
    """Something that a metric needs is not there; the message says what, and how to get it. Others can still run."""


class MissingWeights(NotRun):
    """Weights that are neither here nor to be had; the message says which, how large, and where to put them."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A file that a metric needs: of a hub's model, or at an address. `option` of the command line names it."""

    what: str
    file: str
    size: str
    option: str
    hub: str = ""
    address: str = ""


INCEPTION = Known(
    what="Inception v3 of TensorFlow, as FID is defined by",
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
    """The file that was given, else the one that lies where torch or the hub keep theirs, else downloaded.

    Raises:
        MissingWeights: it is nowhere, and could not be had.
        ValueError: a file was given that is not there.
    """
    if given:
        if not (path := find_file(given)).is_file():
            raise ValueError(f"{known.option} {given}: no such file; expected {known.file}, {known.size}")
        return path
    kept = _torch_home() / known.file
    if kept.is_file():
        return kept
    reason = "not downloaded by this program"
    if known.hub:
        try:
            return Path(hf_hub_download(known.hub, known.file))
        except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
            reason = str(error).strip().splitlines()[0][:200]
    source = f"the hub's {known.hub}" if known.hub else known.address
    raise MissingWeights(
        f"{known.what}: {known.file} ({known.size}) is missing; get it from {source} ({reason}), and put it at {kept}, "
        f"or name the file with {known.option}"
    )


def missing(model: str, tag: str, option: str, reason: str) -> MissingWeights:
    """The error for weights of open_clip that could not be had."""
    size = f" ({_CLIP_SIZES[model, tag]})" if (model, tag) in _CLIP_SIZES else ""
    return MissingWeights(
        f"CLIP weights {tag!r} of {model}{size} are missing: {reason.strip('. ')}. They come from the hub by "
        f"themselves where it is in reach; else name a local file with {option}"
    )


def _torch_home() -> Path:
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(os.path.expanduser(home), "hub", "checkpoints")
