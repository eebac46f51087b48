"""The valid files that fuzz_files.py damages, and the memory needed to open a file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from exports import RECIPE, export
from full_size import write_sparse

from snoopi_core.formats.checkpoint import Provenance
from snoopi_core.formats.layouts import to_single_file, unet_rename
from snoopi_core.formats.lora import LoraMetadata, write_lora


def good_files(checkpoints: Path, loras: Path) -> dict[str, Path]:
    """Our own export, a student LoRA for it, and a Stable Diffusion 1.5 of one level in a single file."""
    files = {
        "own": checkpoints / "good.safetensors",
        "foreign": checkpoints / "good-foreign.safetensors",
        "lora": loras / "good.safetensors",
    }
    if not all(path.exists() for path in files.values()):
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        unet = export(files["own"]).network
        _write_lora(files["lora"], unet)
        _write_foreign(files["foreign"])
    return files


def _write_lora(path: Path, unet: torch.nn.Module) -> None:
    metadata = LoraMetadata(
        title="student", prediction_type="epsilon", recipe=RECIPE, recommended_alpha=0.3, provenance=Provenance(step=7)
    )
    adapters = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            adapters[name] = (0.1 * torch.ones(2, module.in_features), 0.1 * torch.ones(module.out_features, 2))
    write_lora(path, metadata, adapters, alpha=4.0)


def _write_foreign(path: Path) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            layers_per_block=1,
            cross_attention_dim=768,
            attention_head_dim=8,
        )
    weights = to_single_file(unet.state_dict(), unet_rename(unet.config))
    write_sparse(path, {"model.diffusion_model." + name: weight for name, weight in weights.items()})


def reset_memory_peak() -> int:
    """Reset the peak for `memory_peak`; returns the bytes that this process uses now. Linux only."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def memory_peak() -> int:
    """The peak memory of this process since `reset_memory_peak`, in bytes."""
    return _status("VmHWM")


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
