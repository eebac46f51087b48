"""The alpha that a student's file recommends: chosen from measured shares, written into its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from snoopi_core.formats.checkpoint import CheckpointError
from snoopi_core.formats.tensor_file import open_tensor_file, save_atomically
from training.evaluate.generate.student import own_about

TIE = 0.02  # shares nearer than this are taken as equal: a picture or two of a few dozen


def choose_alpha(clean: Mapping[float, float]) -> float:
    """The smallest alpha whose share of clean removals is within `TIE` of the best: a larger one only bends more.

    Raises:
        ValueError: no alpha removes anything cleanly.
    """
    best = max(clean.values())
    if best <= 0:
        raise ValueError(
            f"no alpha of {', '.join(f'{alpha:g}' for alpha in clean)} removes anything and leaves a sound picture "
            "that keeps its prompt; try others with --alphas, or look at the images (generate --pairs)"
        )
    return min(alpha for alpha, share in clean.items() if share >= best - TIE)


def write_alpha(path: Path, alpha: float) -> float | None:
    """Write the recommendation into a student's file: its metadata, atomically, the weights bit for bit as they were.

    Returns:
        What the file recommended before.

    Raises:
        CheckpointError: it is no file of ours.
        OSError: it cannot be written; the old one stays.
    """
    file = open_tensor_file(path)
    key, about = own_about(str(path))
    if about is None:
        raise CheckpointError(
            f"{path} is not a file of this project, so nothing was written; make one with `python -m training.export`"
        )
    new = about.model_copy(update={"recommended_alpha": alpha})
    save_atomically(path, file.read(), file.metadata | {key: new.model_dump_json()})
    return about.recommended_alpha
