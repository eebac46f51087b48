"""How well images fit their prompts: CLIP score, and HPSv2 (2306.09341). Both are cosine similarities.

Dimensions: B images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, Normalize
from torchvision.transforms.functional import pad, resize, to_tensor
from tqdm import tqdm

from training.evaluate.metrics.batching import batches, prepared
from training.evaluate.metrics.open_clip_model import OpenClip
from training.evaluate.metrics.summary import mean_of, styles_of
from training.evaluate.metrics.weights import HPS, find_weights
from training.evaluate.paper_protocol import HPS_GROUP
from training.evaluate.sets.image_files import read_image
from training.evaluate.sets.manifest import Manifest


@dataclass
class ClipScore:
    """cos(image, prefix + prompt). model, weights: as for `OpenClip`, loaded when needed."""

    model: str
    weights: str
    prefix: str
    batch: int
    device: torch.device

    @cached_property
    def clip(self) -> OpenClip:
        return OpenClip(self.model, self.weights, self.device, option="--clip-weights")

    def release(self) -> None:
        """Free the model; it is loaded again when needed."""
        vars(self).pop("clip", None)

    def __call__(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        prompts = [self.prefix + row.prompt for row in manifest.images]
        values = _cosines(self.clip, folder, manifest, prompts, self.batch, "CLIP score")
        return mean_of(values) | {"model": self.model, "weights": self.clip.weights, "prefix": self.prefix}


@dataclass
class Hps:
    """100 cos(image, prompt), by version "v2.0" or "v2.1" of HPSv2, which cannot be compared with each other.

    weights: a local file; None: find or download them.
    """

    version: str
    model: str
    weights: str | None
    batch: int
    device: torch.device

    @cached_property
    def clip(self) -> OpenClip:
        known = HPS[self.version]
        weights = str(find_weights(known, self.weights))
        return OpenClip(self.model, weights, self.device, option=known.option, prepare=hps_preparation)

    def __call__(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        prompts = [row.prompt for row in manifest.images]
        cosines = _cosines(self.clip, folder, manifest, prompts, self.batch, f"HPS {self.version}")
        values = [100 * value for value in cosines]
        styles = styles_of(values, [row.group for row in manifest.images], HPS_GROUP)
        return mean_of(values) | {"version": self.version, "model": self.model, "styles": styles}


def hps_preparation(side: int, normalise: Normalize) -> Callable[[Image.Image], torch.Tensor]:
    """HPSv2's preprocessing to (3, side, side): the longer edge to `side`, bicubic on the tensor, then black bars.

    Bicubic is antialiased, as it is for HPSv2 with torchvision 0.17 and newer.
    """

    def prepare(picture: Image.Image) -> torch.Tensor:
        image = to_tensor(picture.convert("RGB"))
        height, width = image.shape[1:]
        scale = side / max(height, width)
        if scale != 1:
            new = [round(height * scale), round(width * scale)]
            image = resize(image, new, InterpolationMode.BICUBIC, antialias=True)
            rows, columns = side - new[0], side - new[1]
            image = pad(image, [columns // 2, rows // 2, columns - columns // 2, rows - rows // 2])
        return normalise(image)

    return prepare


def _cosines(
    clip: OpenClip, folder: Path, manifest: Manifest, prompts: Sequence[str], batch: int, title: str
) -> list[float]:
    cosines: list[float] = []
    with tqdm(total=len(prompts), desc=f"{title}, {manifest.method}", unit="image", mininterval=1, disable=None) as bar:
        inputs = prepared(manifest.images, lambda row: clip.prepare(read_image(folder / row.file)), batch)
        for images, texts in zip(inputs, batches(prompts, batch), strict=True):
            cosines += (clip.encode(images) * clip.texts(texts)).sum(dim=1).tolist()
            bar.update(len(images))
    return cosines
