"""What a judge returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from training.evaluate.sets.pairs import Pair


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on one image; None where the judge cannot decide.

    absent: what the negative prompt names is not in the image.
    kept: the image shows what the prompt asks for.
    valid: the image is not broken.
    """

    absent: bool
    kept: bool | None = None
    valid: bool | None = None


class Judge(Protocol):
    """Returns a verdict for each of several images that were made for `pair`."""

    def __call__(self, pictures: list[Image.Image], pair: Pair) -> Sequence[Verdict]: ...
