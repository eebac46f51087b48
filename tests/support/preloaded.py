"""Imported once by the fork server: our commands, and the heavy libraries that they import lazily."""

from __future__ import annotations

import importlib

for module in (
    "trainer",
    "evaluation",
    "training.trainer.launch",
    "training.trainer.estimate.dry_run",
    "training.evaluate.generate.command",
    "training.evaluate.metrics.command",
    "training.prompts.encode",
    "datasets",
    "matplotlib.figure",
    "torch.utils.tensorboard",
):
    importlib.import_module(module)
