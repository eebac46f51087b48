"""How well images fit their prompts: CLIP score, and HPSv2 (2306.09341), both a cosine.

Dimensions: B images, H x W pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, Normalize
from torchvision.transforms.functional import pad, resize, to_tensor
from tqdm import tqdm

from training.evaluate.metrics.batching import batches, device_of, prepared
from training.evaluate.metrics.open_clip_model import OpenClip
from training.evaluate.metrics.summary import mean_of, styles_of
from training.evaluate.metrics.weights import HPS, find_weights
from training.evaluate.paper_protocol import HPS_GROUP
from training.evaluate.sets.image_files import read_image
from training.evaluate.sets.manifest import Manifest


def hps_preparation(side: int, normalise: Normalize) -> Callable[[Image.Image], torch.Tensor]:
    """HPSv2's own way to (3, side, side): the longer edge to `side`, bicubic on the tensor, then black bars.

    Bicubic has antialiasing here, as it has for HPSv2 with torchvision 0.17 and newer.
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


class ClipScore:
    """cos(image, prefix + prompt), by the model that the command line names."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    @cached_property
    def clip(self) -> OpenClip:
        args = self.args
        return OpenClip(args.clip_model, args.clip_weights, device_of(args), option="--clip-weights")

    def __call__(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        args = self.args
        prompts = [args.clip_prefix + row.prompt for row in manifest.images]
        values = _cosines(self.clip, folder, manifest, prompts, args.batch, "CLIP score")
        return mean_of(values) | {"model": args.clip_model, "weights": self.clip.weights, "prefix": args.clip_prefix}


class Hps:
    """100 cos(image, prompt), by one version of HPSv2; v2.0 and v2.1 do not compare."""

    def __init__(self, args: argparse.Namespace, version: str) -> None:
        self.args, self.version = args, version

    @cached_property
    def clip(self) -> OpenClip:
        args, known = self.args, HPS[self.version]
        weights = find_weights(known, getattr(args, f"hps_{self.version}_weights"))
        return OpenClip(args.hps_model, str(weights), device_of(args), option=known.option, prepare=hps_preparation)

    def __call__(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        prompts = [row.prompt for row in manifest.images]
        found = _cosines(self.clip, folder, manifest, prompts, self.args.batch, f"HPS {self.version}")
        values = [100 * value for value in found]
        styles = styles_of(values, [row.group for row in manifest.images], HPS_GROUP)
        return mean_of(values) | {"version": self.version, "model": self.args.hps_model, "styles": styles}


def _cosines(
    clip: OpenClip, folder: Path, manifest: Manifest, prompts: Sequence[str], batch: int, title: str
) -> list[float]:
    found: list[float] = []
    with tqdm(total=len(prompts), desc=f"{title}, {manifest.method}", unit="image", mininterval=1) as bar:
        inputs = prepared(manifest.images, lambda row: clip.prepare(read_image(folder / row.file)), batch)
        for images, texts in zip(inputs, batches(prompts, batch), strict=True):
            found += (clip.encode(images) * clip.texts(texts)).sum(dim=1).tolist()
            bar.update(len(images))
    return found
