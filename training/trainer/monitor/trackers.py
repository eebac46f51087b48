"""Logging to TensorBoard and Weights & Biases (W&B) through accelerate's trackers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from training.config import Recipe, RecipeError

log = logging.getLogger(__name__)
PROJECT = "snoopi"  # folder below tensorboard/, and project at W&B
_IMAGES = {"tensorboard": {"dataformats": "NHWC"}}  # how to log images, where the default does not fit
_GROUPS = {  # by a pattern of names; the first that fits
    "sample_": "samples",
    "x0_": "x0",
    "gap_t": "gap by timestep",
    r"eval_\w+_(low|high)$": "evaluation intervals",
    "eval_": "evaluation",
}


class Trackers:
    """The trackers that a recipe names. For the main process.

    Args:
        done: iterations that are done. Later ones, logged by an earlier start, are repeated: TensorBoard hides the old
            values, W&B keeps the old ones and ignores the new.

    Raises:
        RecipeError: W&B cannot be reached, or is not logged in.
    """

    def __init__(self, folder: Path, recipe: Recipe, done: int) -> None:
        self.trackers: list[GeneralTracker] = []
        for name in recipe.output.trackers:
            self.trackers.append(_tensorboard(folder, done) if name == "tensorboard" else _wandb(folder, recipe))
        self.log_text("recipe", recipe.to_toml(), done)

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        """Log scalars, grouped by name."""
        grouped = {f"{_group(name)}/{name}": value for name, value in metrics.items()}
        self._each(lambda tracker: tracker.log(grouped, step=iteration))

    def log_image(self, name: str, image: np.ndarray, iteration: int) -> None:
        """Log one image (H, W, 3) uint8."""
        images = {name: image[None]}
        self._each(lambda tracker: tracker.log_images(images, step=iteration, **_IMAGES.get(tracker.name, {})))

    def log_text(self, name: str, text: str, iteration: int) -> None:
        """Log preformatted text to TensorBoard only: W&B has the recipe as its config, and records the console."""
        shown = {name: "".join(f"    {line}\n" for line in text.splitlines())}
        self._each(lambda tracker: isinstance(tracker, TensorBoardTracker) and tracker.log(shown, step=iteration))

    def close(self) -> None:
        self._each(lambda tracker: tracker.finish())
        self.trackers = []

    def _each(self, action: Callable[[GeneralTracker], object]) -> None:
        """Call `action` for each tracker. One that fails is dropped: TensorBoard's writer does not recover."""
        for tracker in list(self.trackers):
            try:
                action(tracker)
            except Exception as error:  # a tracker's error must not end the run
                log.warning("%s cannot be written (%s); it is off until the run is resumed", tracker.name, error)
                self.trackers.remove(tracker)


def _tensorboard(folder: Path, done: int) -> TensorBoardTracker:
    tracker = TensorBoardTracker(PROJECT, folder / "tensorboard", purge_step=done + 1)
    tracker.start()
    return tracker


def _wandb(folder: Path, recipe: Recipe) -> WandBTracker:
    """One W&B run for each run folder, also after a resume."""
    import wandb

    id_file = folder / "wandb" / "run-id.txt"
    if not id_file.exists():
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(uuid4().hex[:12], encoding="utf-8")
    tracker = WandBTracker(
        PROJECT,
        name=folder.name,
        id=id_file.read_text(encoding="utf-8").strip(),
        resume="allow",
        dir=str(folder),
        config=recipe.model_dump(mode="json"),
    )
    try:
        tracker.start()
    except wandb.Error as error:
        raise RecipeError(
            f"W&B cannot be reached ({error}). Log in with `wandb login`; or set WANDB_MODE=offline, which logs to "
            f"{id_file.parent}; or remove wandb from output.trackers"
        ) from error
    return tracker


def _group(name: str) -> str:
    return next((group for pattern, group in _GROUPS.items() if re.match(pattern, name)), "train")
