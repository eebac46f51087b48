"""More scores, by functions: ImageReward and PickScore where they are installed, or one of your own.

def score(pictures: list[PIL.Image.Image], prompts: list[str]) -> list[float]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from training.evaluate.judges import load_callable
from training.evaluate.metrics.batching import batches
from training.evaluate.metrics.summary import mean_of
from training.evaluate.metrics.weights import MissingWeights, NotRun
from training.evaluate.sets.image_files import read_image
from training.evaluate.sets.manifest import Manifest

Score = Callable[[list[Image.Image], list[str]], Sequence[float]]
PICKSCORE, PICKSCORE_CLIP = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def load_plugin(name: str) -> Score:
    """A scoring function by its name.

    Raises:
        ValueError: there is no such function.
    """
    return {"imagereward": image_reward, "pickscore": pick_score}.get(name) or load_callable(name, "score")


class Plugin:
    """The mean of a function's scores."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        self.args, self.name, self.function = args, name, load_plugin(name)

    def __call__(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        values: list[float] = []
        for rows in batches(manifest.images, self.args.batch):
            found = self.function([read_image(folder / row.file) for row in rows], [row.prompt for row in rows])
            if len(found) != len(rows):
                raise ValueError(f"score {self.name}: expected {len(rows)} numbers, got {len(found)}")
            values += map(float, found)
        return mean_of(values)


def pick_score(pictures: list[Image.Image], prompts: list[str]) -> list[float]:
    """PickScore (2305.01569): exp(s) cos(image, prompt) / 100 of its own CLIP-H.

    PICKSCORE_PATH may name a folder that holds its weights, and its processor's files.

    Raises:
        MissingWeights: its weights are neither here nor on a hub in reach.
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
        NotRun: the package is not there.
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
            f"PickScore's weights (4 GB) are missing: {str(error).splitlines()[0][:200]}; they come from the hub's "
            f"{PICKSCORE}, with the processor of {PICKSCORE_CLIP}, or from a folder of both that PICKSCORE_PATH names"
        ) from error


@cache
def _image_reward():  # noqa: ANN202
    try:
        import ImageReward
    except Exception as error:  # it is for old libraries, and breaks in many ways beside newer ones
        raise NotRun(f"ImageReward is not installed, or broken ({error}): pip install image-reward") from error
    return ImageReward.load("ImageReward-v1.0")
