"""Read the attributes of pictures of the world of avatars, and tell whether a picture is one of the world's.

Dimensions: B images (B, 3, 64, 64) in [0, 1].

A small network reads the subject and each attribute. Whether a picture is valid is decided without it, by analysis and
synthesis: the scene that was read is drawn, and the picture must look like that drawing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.nn import Conv2d, GroupNorm, Linear  # by name: comfy-test takes "nn." before them for a node that loads them

from training.prompts.avatars.captions import SUBJECT, Stated
from training.prompts.avatars.draw import render
from training.prompts.avatars.scene import SIZE, SUBJECTS, Scene, complete

WEIGHTS = Path(__file__).with_name("reader.safetensors")
_WIDTHS = (32, 64, 96, 96)
_CELL = 8  # side of the squares whose worst one is compared
# Errors of a valid picture against its drawing, in [0, 1]: the mean, and the mean in the worst square. Calibrated with
# pictures that were encoded and decoded (python -m experiments.avatars_teacher.reader --calibrate).
MEAN_TOLERANCE = 0.035
SQUARE_TOLERANCE = 0.16


def questions() -> dict[tuple[str, str], tuple[str, ...]]:
    """Everything that is read, with the answers: (subject, attribute), and ("", "subject") for the subject itself."""
    found: dict[tuple[str, str], tuple[str, ...]] = {("", SUBJECT): tuple(SUBJECTS)}
    for subject, about in SUBJECTS.items():
        found |= {(subject, name): tuple(attribute.values) for name, attribute in about.attributes.items()}
    return found


class AttributeReader(nn.Module):
    """A convolutional network with a linear head for each question; it keeps where things are."""

    def __init__(self) -> None:
        super().__init__()
        self.questions = questions()
        layers: list[nn.Module] = []
        for narrow, wide in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            layers += [Conv2d(narrow, wide, 3, stride=2, padding=1), GroupNorm(8, wide), nn.SiLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        side = SIZE // 2 ** len(_WIDTHS)
        self.heads = Linear(_WIDTHS[-1] * side**2, sum(map(len, self.questions.values())))

    def forward(self, images: torch.Tensor) -> dict[tuple[str, str], torch.Tensor]:
        """Logits (B, number of answers) for each question."""
        logits = self.heads(self.features(images * 2 - 1))
        sizes = [len(answers) for answers in self.questions.values()]
        return dict(zip(self.questions, logits.split(sizes, dim=1), strict=True))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read in B pictures. scenes: B scenes. valid: bool (B,), whether a picture looks like its scene.

    mean_error, square_error: float (B,), of the picture against the drawing of its scene.
    """

    scenes: list[Scene]
    valid: torch.Tensor
    mean_error: torch.Tensor
    square_error: torch.Tensor

    def shows(self, row: int, stated: Stated) -> bool:
        """Whether a picture has everything that a caption states."""
        return all(self.value(row, name) in values for name, values in stated.items())

    def value(self, row: int, attribute: str) -> str | None:
        """What was read of an attribute, or of the subject; None if the picture's subject does not have it."""
        scene = self.scenes[row]
        return scene.subject if attribute == SUBJECT else scene.values.get(attribute)


@functools.cache
def load_reader() -> AttributeReader:
    """The trained network.

    Raises:
        FileNotFoundError: its file is missing.
    """
    reader = AttributeReader()
    reader.load_state_dict({name: weight.float() for name, weight in load_file(WEIGHTS).items()})
    return reader.eval().requires_grad_(False)


@torch.no_grad()
def scenes_of(images: torch.Tensor, reader: AttributeReader) -> list[Scene]:
    """The most likely scene of each image (B, 3, 64, 64)."""
    answers = {key: logits.argmax(dim=1).tolist() for key, logits in reader(images).items()}
    scenes = []
    for row in range(len(images)):
        subject = reader.questions["", SUBJECT][answers["", SUBJECT][row]]
        values = {
            name: reader.questions[subject, name][answers[subject, name][row]] for name in SUBJECTS[subject].attributes
        }
        scenes.append(complete(subject, values))
    return scenes


def errors(images: torch.Tensor, drawn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean error (B,) of images against drawings (B, 3, 64, 64), and the mean error (B,) in the worst square."""
    gap = (images - drawn).abs().mean(dim=1, keepdim=True)
    return gap.mean(dim=(1, 2, 3)), F.avg_pool2d(gap, _CELL, stride=_CELL // 2).flatten(1).amax(dim=1)


def read(images: torch.Tensor, reader: AttributeReader | None = None) -> Reading:
    """Read B images, and whether each is a picture of the world.

    Args:
        images: (B, 3, SIZE, SIZE); values are clamped to [0, 1].
        reader: another network than the one in `WEIGHTS`.

    Raises:
        ValueError: wrong size or number of channels; or the packages that draw are not installed.
    """
    if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"expected images of shape (B, 3, {SIZE}, {SIZE}), got {tuple(images.shape)}")
    images = images.detach().float().cpu().clamp(0.0, 1.0)
    reader = reader or load_reader()
    scenes = [scene for part in images.split(64) for scene in scenes_of(part, reader)]
    mean, square = errors(images, render(scenes))
    valid = (mean < MEAN_TOLERANCE) & (square < SQUARE_TOLERANCE)
    return Reading(scenes=scenes, valid=valid, mean_error=mean, square_error=square)
