"""Zero-shot classification as a judge: which of several sentences fits an image best, by an open_clip model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image

from training.evaluate.judges.verdict import Verdict
from training.evaluate.metrics.open_clip_model import OpenClip
from training.evaluate.sets.pairs import Pair, Words

_VALID = (
    ("a photo", "a clear picture", "a sharp, detailed picture"),
    ("a blurry, broken picture", "random noise", "a distorted, deformed picture", "a blank picture"),
)


@dataclass(frozen=True)
class ZeroShot:
    """The nearest sentence decides. `valid` is the least reliable answer: CLIP hardly notices deformed limbs."""

    clip: OpenClip

    def __call__(self, pictures: list[Image.Image], pair: Pair) -> list[Verdict]:
        images = self.clip.images(pictures)
        unwanted, asked = pair.classes()
        present, kept, valid = (self._first_wins(images, *classes) for classes in (unwanted, asked, _VALID))
        return [Verdict(absent=not p, kept=k, valid=v) for p, k, v in zip(present, kept, valid, strict=True)]

    def _first_wins(self, images: torch.Tensor, one: Words, other: Words) -> list[bool]:
        """For each image (B, E), whether the best of all sentences is one of `one`."""
        best = (images @ self.clip.texts([*one, *other]).T).argmax(dim=1)
        return (best < len(one)).tolist()
