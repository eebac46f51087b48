"""The latent code of the shapes world: four maps of 8x8, designed for a small model to learn.

An autoencoder this small learns an entangled code by itself, and a teacher of 2M parameters then got only 0.88 of the
attributes right. So the code is given, and the VAE learns to write and to read it: brightness, two axes of colour, and
the object's coverage, each averaged over 8x8 pixels. Colour and coverage are sharpened, which raises the shape's share
of the variance to a third; without that, the shape is not learned.

Dimensions: B images, C = 4 maps, h = w = 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from training.prompts.shapes.scene import Scene, masks, render

CELL = 8
#                brightness, red-green, yellow-blue, coverage
_MIDDLE = (0.528, 0.0, -0.005, 0.051)  # mean over the world's scenes
_SPREAD = (0.305, 0.100, 0.105, 0.207)  # standard deviation, after sharpening
_SHARPEN = (0.0, 0.5, 0.5, 0.7)  # share of the 3x3 neighbourhood's mean that is taken away
_WEIGHT = (0.7, 1.0, 1.0, 1.25)  # squares sum to about 4, so the latents' variance is about 1


def code(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The latents (B, 4, 8, 8), of about zero mean and unit variance, of images.

    Args:
        images: (B, 3, 64, 64) in [0, 1].
        mask: the object's coverage, (B, 1, 64, 64) in [0, 1].
    """
    red, green, blue = images.split(1, dim=1)
    axes = ((red - green) / 2**0.5, (red + green - 2 * blue) / 6**0.5)
    maps = F.avg_pool2d(torch.cat([(red + green + blue) / 3, *axes, mask], dim=1), CELL)
    around = F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
    middle, spread, sharpen, weight = (
        torch.tensor(values)[:, None, None] for values in (_MIDDLE, _SPREAD, _SHARPEN, _WEIGHT)
    )
    return (maps - sharpen * around - middle) / spread * weight


def latents_of(scenes: list[Scene]) -> torch.Tensor:
    """Latents (B, 4, 8, 8) of drawn scenes."""
    return code(render(scenes), masks(scenes))
