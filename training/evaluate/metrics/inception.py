"""Inception's pool3 features as in clean-fid (Parmar et al. 2022), with torch-fidelity's network.

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
from training.evaluate.metrics.weights import INCEPTION, NotRun

SIDE, WIDTH = 299, 2048


class Inception:
    """TensorFlow's Inception v3, frozen. fingerprint: SHA-256 of its weights file."""

    def __init__(self, weights: Path, device: torch.device) -> None:
        """Load the network.

        Raises:
            NotRun: torch-fidelity is not installed.
            ValueError: the file does not hold the weights.
        """
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise NotRun('torch-fidelity is not installed: pip install ".[training]"') from error
        try:
            # the library loads any pickle, which can run code: check first that this file is plain tensors
            torch.load(weights, weights_only=True, map_location="meta")
            library = FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(WIDTH)], feature_extractor_weights_path=str(weights)
            )
        except (RuntimeError, ValueError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{weights} does not hold Inception's weights as FID needs them ({readable(str(error), 300)}); "
                f"expected {INCEPTION.file}"
            ) from error
        # The library's forward takes uint8 and resizes; clean-fid needs fractions. Its layers run in the order that
        # they are defined in, up to the average pool; the classifier after it is left out.
        *layers, _ = library.children()
        self.network = nn.Sequential(*layers, nn.Flatten()).to(device)
        with open(weights, "rb") as file:
            self.fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        self.device = device

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> np.ndarray:
        """(B, D), from images (B, 3, 299, 299) in 0 .. 255 as `clean_resize` makes them."""
        return self.network((images.to(self.device) - 128) / 128).cpu().numpy()


def square(picture: Image.Image, side: int) -> Image.Image:
    """The centre square, resized to `side` pixels by Lanczos."""
    least = min(picture.size)
    return center_crop(picture, [least, least]).resize((side, side), Image.Resampling.LANCZOS)


def clean_resize(picture: Image.Image) -> torch.Tensor:
    """(3, 299, 299), 0 .. 255 without rounding: bicubic with antialiasing, each channel in fp32."""
    channels = [
        np.asarray(band.convert("F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for band in picture.split()
    ]
    return torch.from_numpy(np.stack(channels)).clamp(0, 255)
