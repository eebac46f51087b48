"""Settings that make a run faster on CUDA: TF32, cuDNN's choice of algorithms, and channels last."""

from __future__ import annotations

import torch
from accelerate.utils import DistributedType

from training.config import Recipe


def use_cuda_settings(recipe: Recipe, device: torch.device, kind: DistributedType) -> str:
    """Apply loop.tf32 and loop.cudnn_benchmark to this process, on CUDA only; a line for the log.

    It says what loop.channels_last does, too, which `build_trainer` applies.
    """
    loop = recipe.loop
    if device.type != "cuda":
        return f"loop.tf32, loop.cudnn_benchmark and loop.channels_last act on CUDA only: no effect on {device.type}"
    # the older of torch's two interfaces, which every supported version has; they must not be mixed
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = loop.tf32
    torch.backends.cudnn.benchmark = loop.cudnn_benchmark
    tf32 = "on" if loop.tf32 else "off"
    if loop.tf32 and not torch.cuda.is_tf32_supported():
        tf32 = "no effect, since this device has none"
    layout = "on" if loop.channels_last else "off"
    if loop.channels_last and (reason := needs_contiguous(recipe, kind)):
        layout = f"no effect with {reason}"
    benchmark = "on" if loop.cudnn_benchmark else "off"
    return f"loop.tf32: {tf32}; loop.cudnn_benchmark: {benchmark}; loop.channels_last: {layout}"


def needs_contiguous(recipe: Recipe, kind: DistributedType) -> str:
    """What of this run cannot use channels-last weights; empty if nothing."""
    if kind == DistributedType.FSDP:
        return "FSDP"
    return "loop.optimizer=adamw8bit" if recipe.loop.optimizer == "adamw8bit" else ""
