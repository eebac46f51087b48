"""What made images are compared with: a folder of images, or what was kept of one.

Kept is an .npz with mu (D,) and sigma (D, D), as clean-fid and pytorch-fid have it; ours also has features (N, D), for
precision and recall, and what they hang on: the side that images were brought to, and Inception's weights.
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
from training.evaluate.metrics.frechet import Gaussian
from training.evaluate.metrics.inception import WIDTH, Inception, clean_resize, square
from training.evaluate.sets.image_files import list_images, read_image


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`features` (N, D) are None where only statistics were kept; `images` is 0 where their number was not."""

    gaussian: Gaussian
    features: np.ndarray | None
    images: int
    name: str


def features_of(paths: Sequence[Path], network: Inception, *, side: int | None, batch: int, title: str) -> np.ndarray:
    """(N, D), with a bar.

    Raises:
        ValueError: without `side`, images of several sizes: what was cropped or not would be compared.
    """
    sizes: dict[tuple[int, int], Path] = {}

    def prepare(path: Path):  # noqa: ANN202
        picture = read_image(path)
        sizes.setdefault(picture.size, path)
        if len(sizes) > 1 and side is None:
            said = ", ".join(f"{w}x{h} ({path.name})" for (w, h), path in list(sizes.items())[:3])
            raise ValueError(f"{path.parent} holds images of several sizes: {said}; bring them to one with --side 256")
        return clean_resize(picture if side is None else square(picture, side))

    found = []
    with tqdm(total=len(paths), desc=title, unit="image", mininterval=1) as bar:
        for images in prepared(paths, prepare, batch):
            found.append(network.features(images))
            bar.update(len(images))
    return np.concatenate(found)


def open_reference(place: Path, network: Inception, *, side: int | None, batch: int) -> Reference:
    """The reference, measured where it is a folder.

    Raises:
        FileNotFoundError: there is nothing, or no image.
        ValueError: no such statistics, or of images of another side, or by other weights.
    """
    if place.is_file():
        return _kept(place, network, side)
    features = features_of(list_images(place), network, side=side, batch=batch, title="reference")
    return Reference(gaussian=Gaussian.of_features(features), features=features, images=len(features), name=str(place))


def keep(reference: Reference, path: Path, network: Inception, side: int | None) -> None:
    """Write a reference's statistics and features.

    Raises:
        ValueError: something is there already, or there are no features to keep.
    """
    if path.exists() or path.suffix != ".npz" or reference.features is None:
        raise ValueError(
            f"--save-reference {path}: expected the name of a new .npz file, and a folder of images as --reference"
        )
    buffer = io.BytesIO()
    gaussian = reference.gaussian
    kept = {"mu": gaussian.mu, "sigma": gaussian.sigma, "features": reference.features}
    np.savez(buffer, **kept, side=side or 0, weights=network.fingerprint)
    write_atomically(path, buffer.getvalue())


def _kept(path: Path, network: Inception, side: int | None) -> Reference:
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = file["mu"], file["sigma"]
            features = file.get("features")
            kept_side = int(file["side"]) if "side" in file else None
            weights = str(file["weights"]) if "weights" in file else network.fingerprint
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} holds no statistics of images ({error}); expected an .npz with mu and sigma, or a folder of images"
        ) from error
    if mu.shape != (WIDTH,) or sigma.shape != (WIDTH, WIDTH):
        raise ValueError(f"{path}: mu {mu.shape} and sigma {sigma.shape}, expected those of {WIDTH} features")
    if kept_side is not None and kept_side != (side or 0):
        raise ValueError(f"{path} is of images of side {kept_side or 'as they were'}, got --side {side or 'none'}")
    if weights != network.fingerprint:
        raise ValueError(f"{path} is by other weights of Inception ({weights[:12]}, got {network.fingerprint[:12]})")
    images = 0 if features is None else len(features)
    return Reference(gaussian=Gaussian.of_statistics(mu, sigma), features=features, images=images, name=str(path))
