"""Imported once by the fork server: our commands, and the heavy libraries that they import lazily."""

from __future__ import annotations

import gc
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
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
):
    importlib.import_module(module)

from training.models.clip_tokenizer import EOS, clip_tokenizer  # noqa: E402 - after the imports above

for arguments in ((), (EOS,), ("!",)):  # it takes half a second, and every run needs it
    clip_tokenizer(*arguments)

gc.collect()
gc.freeze()  # for the forked processes
