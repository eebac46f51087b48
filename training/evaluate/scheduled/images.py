"""Makes the images of an evaluation with all processes of a run, and writes them in the first one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from training.evaluate.generate.maker import Maker
from training.evaluate.sets.folder import claim_folder
from training.evaluate.sets.image_files import write_image
from training.evaluate.sets.manifest import Manifest, Row
from training.models.guidance.methods import Method

log = logging.getLogger(__name__)


def make_images(maker: Maker, sets: dict[Path, Manifest]) -> str:
    """Make the images of all sets. Call it in every process, with folders that do not exist.

    Returns:
        What went wrong, or "": in some process while making them, or in the first one while writing.
    """
    failed = ""
    for folder, manifest in sets.items():
        for rows, images in _batches(maker, manifest):
            if images is None:
                return "an image of some process is not finite, needs too much memory (evaluate.batch=1), or failed"
            if maker.accelerator.is_main_process and not failed:
                failed = _write(folder, manifest, rows, images)
    return failed


def _batches(maker: Maker, manifest: Manifest) -> Iterator[tuple[Sequence[Row], torch.Tensor | None]]:
    """The next rows, of all processes, and their images in [0, 1] on the CPU; None instead if a process failed."""
    rows, accelerator = manifest.images, maker.accelerator
    world, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
    size = min(manifest.batch, -(-len(rows) // world))
    for start in range(0, len(rows), size * world):
        # filled up with the first rows at the end: gathering takes as many images of each process
        own = [rows[(start + rank * size + n) % len(rows)] for n in range(size)]
        error, images = "", torch.empty(0)
        try:
            images = maker.draw(own, Method.parse(manifest.method))
        except Exception as caught:  # any error: otherwise the other processes would wait for this one's images
            error = f"{type(caught).__name__}: {caught}"
            # an error, since processes but the first show no warnings
            log.error("an image for the evaluation cannot be made: %s", error)
        if accelerator.reduce(torch.tensor(float(bool(error)), device=device), "sum").item():
            yield (), None
            return
        pixels = (images.clamp(0, 1) * 255).round().byte().to(device)
        yield rows[start : start + size * world], accelerator.gather(pixels).cpu() / 255


def _write(folder: Path, manifest: Manifest, rows: Sequence[Row], images: torch.Tensor) -> str:
    """Write the images of `rows`, the first of `images`. Returns why that failed, or "": an error must not be raised
    before the other processes have made all images."""
    try:
        claim_folder(folder, manifest)
        for row, image in zip(rows, images, strict=False):
            write_image(folder / row.file, image, manifest.info(row))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
