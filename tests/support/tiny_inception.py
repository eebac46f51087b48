"""Inception as FID has it, with random weights: the right names and shapes, and features that differ between images."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from torch_fidelity import feature_extractor_inceptionv3 as library


def write_inception(path: Path) -> Path:
    """Write a file as torch-fidelity's own, 96 MB."""
    kind = library.FeatureExtractorInceptionV3
    with (
        mock.patch.object(library, "load_state_dict_from_url", lambda *args, **kwargs: {}),
        mock.patch.object(kind, "load_state_dict", lambda self, weights: None),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(0)
        network = kind("inception-v3-compat", ["2048"])
        for module in network.modules():
            if isinstance(
                module, torch.nn.Conv2d
            ):  # keeps the scale; with the default, outputs vanish over fifty layers
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path
