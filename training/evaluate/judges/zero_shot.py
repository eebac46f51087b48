"""A zero-shot classifier as a judge: which of several sentences fits a picture best, by an open_clip model."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from PIL import Image

from training.evaluate.judges import Verdict
from training.evaluate.metrics.batching import device_of
from training.evaluate.metrics.open_clip_model import OpenClip
from training.evaluate.sets.pairs import Pair, Words

_SOUND = (
    ("a photo", "a clear picture", "a sharp, detailed picture"),
    ("a blurry, broken picture", "random noise", "a distorted, deformed picture", "a blank picture"),
)


@dataclass(frozen=True)
class ZeroShot:
    """The nearest sentence decides; `valid` is the weakest of its answers, since CLIP hardly sees deformed limbs."""

    clip: OpenClip

    @classmethod
    def load(cls, args: argparse.Namespace) -> ZeroShot:
        """The model that a command line names; errors as `OpenClip`."""
        return cls(OpenClip(args.clip_model, args.clip_weights, device_of(args), option="--clip-weights"))

    def __call__(self, pictures: list[Image.Image], pair: Pair) -> list[Verdict]:
        seen = self.clip.images(pictures)
        unwanted, asked = pair.classes()
        present, kept, valid = (self._first_wins(seen, *classes) for classes in (unwanted, asked, _SOUND))
        return [Verdict(absent=not p, kept=k, valid=v) for p, k, v in zip(present, kept, valid, strict=True)]

    def _first_wins(self, seen: torch.Tensor, one: Words, other: Words) -> list[bool]:
        """For each picture, whether the sentence that fits it best is one of the first."""
        best = (seen @ self.clip.texts([*one, *other]).T).argmax(dim=1)
        return (best < len(one)).tolist()
