"""Scores by functions: ImageReward, PickScore, or one of your own.

def score(pictures: list[PIL.Image.Image], prompts: list[str]) -> list[float]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from training.evaluate.metrics.batching import batches
from training.evaluate.metrics.summary import mean_of
from training.evaluate.metrics.weights import MissingWeights, NotRun
from training.evaluate.sets.image_files import read_image
from training.evaluate.sets.manifest import Manifest

PICKSCORE, PICKSCORE_CLIP = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def load_callable(name: str, what: str, built_in: Iterable[str]) -> Callable[..., Any]:
    """Import a function by its name, package.module:function.

    Args:
        what: "judge" or "score", for messages.
        built_in: other names that are available, for messages.

    Raises:
        ValueError: the name has another form, cannot be imported, or is not a function.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        available = ", ".join(built_in)
        raise ValueError(f"{what} {name!r} is not known; available: {available}, or package.module:function")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{what} {name!r} is a {type(found).__name__}, expected a function")
    return found


class Plugin:
    """The mean of a function's scores, `batch` images at a time. Raises ValueError for a name that is not known."""

    def __init__(self, name: str, batch: int) -> None:
        built_in = {"imagereward": image_reward, "pickscore": pick_score}
        self.name, self.batch = name, batch
        self.function: Callable[[list[Image.Image], list[str]], Sequence[float]] = built_in.get(name) or load_callable(
            name, "score", built_in
        )

    def __call__(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        values: list[float] = []
        for rows in batches(manifest.images, self.batch):
            found = self.function([read_image(folder / row.file) for row in rows], [row.prompt for row in rows])
            if len(found) != len(rows):
                raise ValueError(f"score {self.name}: expected {len(rows)} numbers, got {len(found)}")
            values += map(float, found)
        return mean_of(values)


def pick_score(pictures: list[Image.Image], prompts: list[str]) -> list[float]:
    """PickScore (2305.01569): exp(s) cos(image, prompt) / 100, by its own CLIP-H.

    PICKSCORE_PATH may name a folder with its weights and its processor's files.

    Raises:
        MissingWeights: its weights are not on this machine and cannot be downloaded.
    """
    model, processor = _pick_score()
    with torch.no_grad():
        inputs = processor(text=prompts, images=pictures, return_tensors="pt", padding=True, truncation=True)
        outputs = model(**inputs)
        cosines = (outputs.image_embeds * outputs.text_embeds).sum(dim=1)
        return (model.logit_scale.exp() * cosines / 100).tolist()


def image_reward(pictures: list[Image.Image], prompts: list[str]) -> list[float]:
    """ImageReward (2304.05977), by its own package.

    Raises:
        NotRun: the package is not installed or does not work.
    """
    model = _image_reward()
    return [float(model.score(prompt, picture)) for picture, prompt in zip(pictures, prompts, strict=True)]


@cache
def _pick_score():  # noqa: ANN202 - classes of a library that is slow to import
    from transformers import AutoProcessor, CLIPModel

    own = os.environ.get("PICKSCORE_PATH")
    try:
        processor = AutoProcessor.from_pretrained(own or PICKSCORE_CLIP)
        return CLIPModel.from_pretrained(own or PICKSCORE).eval(), processor
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"PickScore's weights (4 GB) are missing: {str(error).splitlines()[0][:200]}; they are the hub's "
            f"{PICKSCORE}, with the processor of {PICKSCORE_CLIP}; PICKSCORE_PATH may name a folder with both"
        ) from error


@cache
def _image_reward():  # noqa: ANN202
    try:
        import ImageReward
    except Exception as error:  # it was written for old libraries, and fails in many ways with newer ones
        raise NotRun(f"ImageReward is not installed, or broken ({error}): pip install image-reward") from error
    return ImageReward.load("ImageReward-v1.0")
