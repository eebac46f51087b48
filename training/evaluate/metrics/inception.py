"""Inception's pool3 features as clean-fid takes them (Parmar et al. 2022), by torch-fidelity's network.

Dimensions: B images, D = 2048 features.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import center_crop

from snoopi_core.formats.tensor_file import readable
from training.evaluate.metrics.weights import NotRun

SIDE, WIDTH = 299, 2048
NAME = "inception-v3-compat"


class Inception:
    """TensorFlow's Inception v3, frozen. fingerprint: SHA-256 of the file of its weights."""

    def __init__(self, weights: Path, device: torch.device) -> None:
        """Load it.

        Raises:
            NotRun: torch-fidelity is not there.
            ValueError: the file does not hold its weights.
        """
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise NotRun("torch-fidelity is not installed: pip install '.[training]'") from error
        problem = f"{weights} does not hold Inception's weights as FID needs them"
        try:
            # the library opens any pickle, which can run code; this one opens none
            torch.load(weights, weights_only=True, map_location="meta")
            self.network: nn.Module = FeatureExtractorInceptionV3(
                NAME, [str(WIDTH)], feature_extractor_weights_path=str(weights)
            ).to(device)
        except (RuntimeError, ValueError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{problem} ({readable(str(error), 300)}); expected weights-inception-2015-12-05-6726825d.pth"
            ) from error
        with open(weights, "rb") as file:
            self.fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        self.device = device
        self._inputs: torch.Tensor | None = None
        self.network.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, given: (self._inputs,))

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> np.ndarray:
        """(B, D) of images (B, 3, 299, 299), 0 .. 255, as `clean_resize` makes them."""
        # the library takes bytes, and clean-fid has fractions: they come in where the bytes would arrive
        self._inputs = (images.to(self.device) - 128) / 128
        bytes_ = torch.zeros(images.shape, dtype=torch.uint8, device=self.device)
        return self.network(bytes_)[0].cpu().numpy()


def square(picture: Image.Image, side: int) -> Image.Image:
    """The middle square, brought to `side` pixels by Lanczos."""
    least = min(picture.size)
    return center_crop(picture, [least, least]).resize((side, side), Image.Resampling.LANCZOS)


def clean_resize(picture: Image.Image) -> torch.Tensor:
    """(3, 299, 299), 0 .. 255 with fractions: bicubic with antialiasing, channel by channel in fp32."""
    channels = [
        np.asarray(band.convert("F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for band in picture.split()
    ]
    return torch.from_numpy(np.stack(channels)).clamp(0, 255)
