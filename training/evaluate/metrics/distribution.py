"""FID, and improved precision and recall: a set of images against the reference."""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluate.metrics.batching import device_of
from training.evaluate.metrics.frechet import Gaussian, frechet_distance
from training.evaluate.metrics.inception import Inception
from training.evaluate.metrics.neighbours import precision_recall
from training.evaluate.metrics.reference import Reference, features_of, keep, open_reference
from training.evaluate.metrics.weights import INCEPTION, NotRun, find_weights
from training.evaluate.sets.manifest import Manifest


class Distribution:
    """Network, reference and features are made once, when the first metric needs them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self._of_set: tuple[Path, np.ndarray] | None = None  # of the last one: 30,000 images take 250 MB

    @cached_property
    def network(self) -> Inception:
        return Inception(find_weights(INCEPTION, self.args.inception_weights), device_of(self.args))

    @cached_property
    def reference(self) -> Reference:
        args = self.args
        if args.reference is None:
            raise NotRun("nothing to compare with: give --reference, a folder of images or an .npz")
        found = open_reference(args.reference, self.network, side=args.side, batch=args.batch)
        if args.save_reference:
            keep(found, args.save_reference, self.network, args.side)
        return found

    def fid(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        reference = self.reference
        value = frechet_distance(Gaussian.of_features(self._features(folder, manifest)), reference.gaussian)
        return {"value": value, **self._compared(manifest)}

    def prc(self, folder: Path, manifest: Manifest) -> dict[str, Any]:
        if (real := self.reference.features) is None:
            raise NotRun(f"{self.reference.name} holds statistics alone; precision and recall need its images")
        k = self.args.neighbours
        precision, recall = precision_recall(self._features(folder, manifest), real, k)
        return {"precision": precision, "recall": recall, "k": k, **self._compared(manifest)}

    def _features(self, folder: Path, manifest: Manifest) -> np.ndarray:
        if self._of_set is None or self._of_set[0] != folder:
            found = features_of(
                [folder / row.file for row in manifest.images],
                self.network,
                side=self.args.side,
                batch=self.args.batch,
                title=f"Inception, {manifest.method}",
            )
            self._of_set = folder, found
        return self._of_set[1]

    def _compared(self, manifest: Manifest) -> dict[str, Any]:
        reference = self.reference
        return {
            "images": len(manifest.images),
            "reference": reference.name,
            "reference_images": reference.images,
            "side": self.args.side,
        }
