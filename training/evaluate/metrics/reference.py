"""The reference that images are compared with: a folder of images, or an .npz file with statistics of one.

As for clean-fid and pytorch-fid, the file holds mu (D,) and sigma (D, D). Ours also holds the features (N, D), which
precision and recall need, and what they depend on: the side of the images and the hash of Inception's weights.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from snoopi_core.formats.atomic import write_atomically
from training.evaluate.metrics.batching import prepared
from training.evaluate.metrics.inception import WIDTH, Inception, clean_resize, square
from training.evaluate.sets.image_files import list_images, read_image
from training.trainer.monitor.frechet import Gaussian


@dataclass(frozen=True, kw_only=True)
class Reference:
    """features: (N, D), or None if the file has only statistics. images: their number, 0 if it is not known."""

    gaussian: Gaussian
    features: np.ndarray | None
    images: int
    name: str


def features_of(paths: Sequence[Path], network: Inception, *, side: int | None, batch: int, title: str) -> np.ndarray:
    """Inception features (N, D), with a progress bar.

    Raises:
        ValueError: the images differ in size and `side` is None, so that cropping would depend on the image.
    """
    sizes: dict[tuple[int, int], Path] = {}

    def prepare(path: Path):  # noqa: ANN202
        picture = read_image(path)
        sizes.setdefault(picture.size, path)
        if len(sizes) > 1 and side is None:
            found = ", ".join(f"{w}x{h} ({path.name})" for (w, h), path in list(sizes.items())[:3])
            raise ValueError(f"{path.parent} holds images of several sizes: {found}; make them equal with --side 256")
        return clean_resize(picture if side is None else square(picture, side))

    features = []
    with tqdm(total=len(paths), desc=title, unit="image", mininterval=1, disable=None) as bar:
        for images in prepared(paths, prepare, batch):
            features.append(network.features(images))
            bar.update(len(images))
    return np.concatenate(features)


def open_reference(place: Path, network: Inception, *, side: int | None, batch: int) -> Reference:
    """Read the statistics in a file, or compute the features of a folder of images.

    Raises:
        FileNotFoundError: nothing is there, or no images are in the folder.
        ValueError: the file has no statistics, or was made with another `side` or other Inception weights.
    """
    if place.is_file():
        return _read(place, network, side)
    features = features_of(list_images(place), network, side=side, batch=batch, title="reference")
    return Reference(gaussian=Gaussian.of_features(features), features=features, images=len(features), name=str(place))


def write_reference(reference: Reference, path: Path, network: Inception, side: int | None) -> None:
    """Save statistics and features as an .npz file.

    Raises:
        ValueError: the file exists or is not an .npz, or the reference has no features.
    """
    if path.exists() or path.suffix != ".npz" or reference.features is None:
        raise ValueError(
            f"--save-reference {path}: expected the name of a new .npz file, and a folder of images as --reference"
        )
    buffer = io.BytesIO()
    arrays = {"mu": reference.gaussian.mu, "sigma": reference.gaussian.sigma, "features": reference.features}
    np.savez(buffer, **arrays, side=side or 0, weights=network.fingerprint)
    write_atomically(path, buffer.getvalue())


def _read(path: Path, network: Inception, side: int | None) -> Reference:
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = file["mu"], file["sigma"]
            features = file.get("features")
            saved_side = int(file["side"]) if "side" in file else None
            weights = str(file["weights"]) if "weights" in file else network.fingerprint
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} holds no statistics of images ({error}); expected an .npz with mu and sigma, or a folder of images"
        ) from error
    if mu.shape != (WIDTH,) or sigma.shape != (WIDTH, WIDTH):
        raise ValueError(f"{path}: mu {mu.shape} and sigma {sigma.shape}, expected {(WIDTH,)} and {(WIDTH, WIDTH)}")
    if saved_side is not None and saved_side != (side or 0):
        raise ValueError(f"{path} was made with --side {saved_side or 'none'}, got --side {side or 'none'}")
    if weights != network.fingerprint:
        raise ValueError(
            f"{path} was made with other Inception weights ({weights[:12]}, got {network.fingerprint[:12]})"
        )
    images = 0 if features is None else len(features)
    return Reference(gaussian=Gaussian.of_statistics(mu, sigma), features=features, images=images, name=str(path))
