"""The latent code of the avatars' world: the whitened principal components of patches of 8x8 pixels.

The code is given, so the teacher can be trained before, or beside, the autoencoder that writes and reads it. Whitening
makes small things count: another mouth changes a thirteenth of what another hair colour changes in pixels, a quarter in
the code.

Dimensions: B images (B, 3, 64, 64) in [0, 1]; K = 16 channels; latents (B, K, 8, 8) of zero mean and unit variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from experiments.avatars_teacher.data import Pictures
from snoopi_core.formats.atomic import replacing

CELL = 8  # pixels along a side of a patch
CHANNELS = 16
_SAMPLE = 4000  # pictures that the components are computed from


@dataclass(frozen=True, kw_only=True)
class Code:
    """A linear code. mean: (3 * 64,) of a patch; basis: (K, 3 * 64), divided by each component's standard deviation."""

    mean: torch.Tensor
    basis: torch.Tensor

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, K, 8, 8) of images."""
        return F.conv2d(images, self.basis.view(-1, 3, CELL, CELL), -(self.basis @ self.mean), stride=CELL)

    def encode_all(self, pictures: Pictures) -> torch.Tensor:
        """Latents (N, K, 8, 8) of all pictures."""
        rows = torch.arange(len(pictures.scenes)).split(500)
        return torch.cat([self.encode(pictures.batch(part)) for part in rows])


def fit_code(pictures: Pictures, channels: int = CHANNELS) -> Code:
    """The code of the pictures for training; the sign of a component is that of its largest weight."""
    rows = torch.arange(pictures.held_back, min(len(pictures.scenes), pictures.held_back + _SAMPLE))
    count, total, square = 0, torch.zeros(3 * CELL**2, dtype=torch.float64), 0.0
    for part in rows.split(500):
        patches = F.unfold(pictures.batch(part), CELL, stride=CELL).transpose(1, 2).flatten(0, 1).double()
        count, total, square = count + len(patches), total + patches.sum(0), square + patches.T @ patches
    mean = total / count
    variances, vectors = torch.linalg.eigh(square / count - mean[:, None] * mean)
    basis = vectors.flip(1)[:, :channels].T
    basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
    basis = basis / variances.flip(0)[:channels].sqrt()[:, None]
    return Code(mean=mean.float(), basis=basis.float())


def load_code(path: Path, pictures: Pictures) -> Code:
    """The code in a file; if there is none, it is computed from the pictures and written."""
    if not path.is_file():
        code = fit_code(pictures)
        with replacing(path) as temporary:
            save_file({"mean": code.mean, "basis": code.basis.contiguous()}, temporary)
    found = load_file(path)
    return Code(mean=found["mean"], basis=found["basis"])
