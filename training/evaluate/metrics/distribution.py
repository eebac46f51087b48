"""FID, and improved precision and recall (Kynkäänniemi et al. 2019, with torch-fidelity), against a reference.

Dimensions: N, M images, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.evaluate.metrics.inception import Inception
from training.evaluate.metrics.reference import Reference, features_of, open_reference, write_reference
from training.evaluate.metrics.weights import INCEPTION, NotRun, find_weights
from training.evaluate.sets.manifest import Manifest
from training.trainer.monitor.frechet import Gaussian, frechet_distance


@dataclass(kw_only=True)
class Distribution:
    """Both metrics, which share the network, the reference and the features of a folder. All are loaded when needed.

    reference_path: a folder of images or an .npz; save_reference: where to save it. side: images are cropped and
    resized to this many pixels (None: left as they are). neighbours: k of precision and recall.
    """

    reference_path: Path | None
    save_reference: Path | None
    inception_weights: str | None
    side: int | None
    neighbours: int
    batch: int
    device: torch.device
    # of the last folder only: 30,000 images take 250 MB
    _features_of: tuple[Path, np.ndarray] | None = field(default=None, init=False)

    @cached_property
    def network(self) -> Inception:
        return Inception(find_weights(INCEPTION, self.inception_weights), self.device)

    @cached_property
    def reference(self) -> Reference:
        if self.reference_path is None:
            raise NotRun("nothing to compare with: give --reference, a folder of images or an .npz")
        found = open_reference(self.reference_path, self.network, side=self.side, batch=self.batch)
        if self.save_reference:
            write_reference(found, self.save_reference, self.network, self.side)
        return found

    def release(self) -> None:
        """Free the network and the features of the last folder, whose images may change. The reference stays."""
        vars(self).pop("network", None)
        self._features_of = None

    def fid(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        reference = self.reference
        value = frechet_distance(Gaussian.of_features(self._features(folder, manifest)), reference.gaussian)
        return {"value": value, **self._about(manifest)}

    def prc(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        if (real := self.reference.features) is None:
            raise NotRun(f"{self.reference.name} holds statistics only; precision and recall need its images")
        precision, recall = precision_recall(self._features(folder, manifest), real, self.neighbours)
        return {"precision": precision, "recall": recall, "k": self.neighbours, **self._about(manifest)}

    def _features(self, folder: Path, manifest: Manifest) -> np.ndarray:
        if self._features_of is None or self._features_of[0] != folder:
            paths, title = [folder / row.file for row in manifest.images], f"Inception, {manifest.method}"
            found = features_of(paths, self.network, side=self.side, batch=self.batch, title=title)
            self._features_of = folder, found
        return self._features_of[1]

    def _about(self, manifest: Manifest) -> dict[str, Any]:
        return {
            "images": len(manifest.images),
            "reference": self.reference.name,
            "reference_images": self.reference.images,
            "side": self.side,
        }


def precision_recall(made: np.ndarray, real: np.ndarray, k: int) -> tuple[float, float]:
    """Precision: the share of made images (N, D) that lie within the distance from some real image (M, D) to its k-th
    nearest real neighbour. Recall: the same with made and real images exchanged.

    Raises:
        ValueError: not more than k images on one side.
    """
    if (least := min(len(made), len(real))) <= k:
        raise ValueError(f"precision and recall with k = {k} need more than {k} images on either side, got {least}")
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    rows = {"neighborhood": k, "batch_size": 2000}  # the default of 10,000 needs 5 GB for COCO's 40,504 images
    return calculate_precision_recall_part(torch.from_numpy(made), torch.from_numpy(real), **rows)
