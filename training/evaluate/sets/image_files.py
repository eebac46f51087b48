"""Images on the disk: written whole or not at all, and read with suspicion.

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


def write_image(path: Path, image: torch.Tensor, info: dict[str, str]) -> None:
    """A PNG of an image (3, H, W) in [0, 1], with `info` in its metadata."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    metadata = PngImagePlugin.PngInfo()
    for key, text in info.items():
        metadata.add_itxt(key, text)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=metadata)
    write_atomically(path, buffer.getvalue())


def is_whole(path: Path, info: dict[str, str]) -> bool:
    """Whether an image is there, undamaged and made with the very same settings."""
    try:
        with Image.open(path) as image:
            same = all(image.info.get(key) == text for key, text in info.items())  # they stand before the pixels
            image.verify()  # every chunk's checksum
        return same
    except (OSError, SyntaxError, ValueError):  # PIL raises all of these for damaged files
        return False


def read_image(path: Path) -> Image.Image:
    """An image, RGB.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or none.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} is missing") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"image {path} is damaged or no image ({error})") from error


def check_images(folder: Path, manifest: Manifest) -> tuple[int, int]:
    """Whether all images of a manifest are there, of one size; returns (W, H).

    Raises:
        FileNotFoundError, ValueError: some are missing or damaged, or their sizes are mixed; says which.
    """
    again = "run generate with the same settings again, it makes only what is missing"
    bad: list[str] = []
    sizes: dict[tuple[int, int], str] = {}
    with ThreadPoolExecutor() as pool:  # decoding happens outside of Python's lock
        found = pool.map(lambda row: _size(folder / row.file), manifest.images)
        for row, size in zip(manifest.images, found, strict=True):
            if size is None:
                bad.append(row.file)
            else:
                sizes.setdefault(size, row.file)
    if bad:
        raise ValueError(
            f"{folder}: {len(bad)} of {len(manifest.images)} images are missing or damaged, first {bad[0]}; {again}"
        )
    return _one_size(sizes, str(folder))


def _size(path: Path) -> tuple[int, int] | None:
    """(W, H) of an image that can be read to its end, else None."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.size
    except (OSError, SyntaxError, ValueError):
        return None


def digest_of(folder: Path, manifest: Manifest) -> str:
    """SHA-256 of the images and of what the manifest says of each: figures belong to these alone, wherever they lie."""
    digest = hashlib.sha256()
    for row in manifest.images:
        digest.update(row.model_dump_json().encode())
        digest.update(hashlib.sha256((folder / row.file).read_bytes()).digest())
    return digest.hexdigest()


def list_images(folder: Path) -> list[Path]:
    """The images of any folder, sorted, all that lie below it.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        held = "no such folder" if not folder.is_dir() else "it holds none"
        raise FileNotFoundError(f"no images in {folder} ({held}); expected {', '.join(SUFFIXES)} files")
    return found


def _one_size(sizes: dict[tuple[int, int], str], where: str) -> tuple[int, int]:
    if len(sizes) > 1:
        said = ", ".join(f"{w}x{h} ({name})" for (w, h), name in list(sizes.items())[:3])
        raise ValueError(f"{where} holds images of {len(sizes)} sizes: {said}; bring them to one size first")
    return next(iter(sizes))
