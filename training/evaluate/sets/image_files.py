"""Image files: written atomically, and checked when read.

Dimensions: H x W pixels.
"""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin

from snoopi_core.formats.atomic import write_atomically
from training.evaluate.sets.manifest import Manifest

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_DAMAGED = (OSError, SyntaxError, ValueError)  # what PIL raises for damaged files


def write_image(path: Path, image: torch.Tensor, info: dict[str, str]) -> None:
    """Write an image (3, H, W) in [0, 1] as a PNG file, with `info` in its metadata."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    metadata = PngImagePlugin.PngInfo()
    for key, text in info.items():
        metadata.add_itxt(key, text)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=metadata)
    write_atomically(path, buffer.getvalue())


def is_complete(path: Path, info: dict[str, str]) -> bool:
    """Whether the image exists, is undamaged and has `info` in its metadata."""
    try:
        with Image.open(path) as image:
            same = all(image.info.get(key) == text for key, text in info.items())
            image.verify()  # the checksums of all chunks
        return same
    except _DAMAGED:
        return False


def read_image(path: Path) -> Image.Image:
    """Read an image as RGB.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged, or not an image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} is missing") from None
    except _DAMAGED as error:
        raise ValueError(f"image {path} is damaged or not an image ({error})") from error


def check_images(folder: Path, manifest: Manifest) -> None:
    """Check that all images of a manifest exist, can be decoded and have the same size.

    Raises:
        ValueError: some are missing or damaged, or the sizes differ.
    """
    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
        found = list(pool.map(lambda row: _size(folder / row.file), manifest.images))
    bad = [row.file for row, size in zip(manifest.images, found, strict=True) if size is None]
    if bad:
        raise ValueError(
            f"{folder}: {len(bad)} of {len(found)} images are missing or damaged, first {bad[0]}; run generate with "
            "the same settings again, it makes only what is missing"
        )
    sizes: dict[tuple[int, int], str] = {}  # with the first file of each
    for row, size in zip(manifest.images, found, strict=True):
        sizes.setdefault(size, row.file)
    if len(sizes) > 1:
        shown = ", ".join(f"{w}x{h} ({file})" for (w, h), file in list(sizes.items())[:3])
        raise ValueError(f"{folder} holds images of {len(sizes)} sizes: {shown}; bring them to one size first")


def digest_of(folder: Path, manifest: Manifest) -> str:
    """SHA-256 of the images and their rows in the manifest, independent of where the folder is."""
    digest = hashlib.sha256()
    for row in manifest.images:
        digest.update(row.model_dump_json().encode())
        digest.update(hashlib.sha256((folder / row.file).read_bytes()).digest())
    return digest.hexdigest()


def list_images(folder: Path) -> list[Path]:
    """All images in a folder and below it, sorted.

    Raises:
        FileNotFoundError: the folder does not exist or has no images.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        reason = "no such folder" if not folder.is_dir() else "the folder has none"
        raise FileNotFoundError(f"no images in {folder} ({reason}); expected {', '.join(SUFFIXES)} files")
    return found


def _size(path: Path) -> tuple[int, int] | None:
    """(W, H) of an image that can be decoded completely, else None."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.size
    except _DAMAGED:
        return None
