"""Builds the published networks at full size with random weights in a real ComfyUI, to measure costs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network: the host's config class and arguments, and a prompt and latents of the usual sizes.

    shapes: of the latent, and of the sound's if there is one: channels, frames of a video, height, width.
    core_nag: whether the host's own NAG node acts on it.
    """

    name: str
    config: str
    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    tokens: int
    width: int
    pooled: int = 0
    core_nag: bool = False


_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "use_spatial_transformer": True,
    "use_temporal_attention": False, "legacy": False, "num_classes": None, "adm_in_channels": None,
}  # fmt: skip
MODELS = {
    "sd15": Model(
        name="SD1.5", config="SD15", shapes=((4, 64, 64),), tokens=77, width=768, core_nag=True,
        arguments={
            **_UNET, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "context_dim": 768,
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "use_linear_in_transformer": False,
        },
    ),
    "sdxl": Model(
        name="SDXL", config="SDXL", shapes=((4, 128, 128),), tokens=77, width=2048, pooled=1280,
        core_nag=True,
        arguments={
            **_UNET, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "context_dim": 2048,
            "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "use_linear_in_transformer": True,
            "num_classes": "sequential", "adm_in_channels": 2816, "num_head_channels": 64,
        },
    ),
    "pixart": Model(
        name="PixArt-alpha", config="PixArtAlpha", shapes=((4, 64, 64),), tokens=120, width=4096,
        arguments={
            "image_model": "pixart_alpha", "input_size": 64, "patch_size": 2, "hidden_size": 1152, "num_heads": 16,
            "depth": 28, "caption_channels": 4096, "micro_condition": False, "pe_interpolation": 1.0,
        },
    ),
}  # fmt: skip


def start_host(*, gpu: bool, pytorch_attention: bool = False) -> None:
    """Put a real ComfyUI and the pack on the import path, as tests/conftest.py does."""
    host = subprocess.check_output([sys.executable, "-m", "scripts.setup.host"], text=True, cwd=ROOT).strip()
    sys.path[:] = [host, *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    attention = ["--use-pytorch-cross-attention"] if pytorch_attention else []
    sys.argv = ["main.py", *([] if gpu else ["--cpu"]), *attention]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    spec = importlib.util.spec_from_file_location(
        "snoopi_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def build(model: Model, *, bf16: bool) -> ModelPatcher:
    """Build a network in bf16 or fp32. Weights are scaled so that activations keep their magnitude."""
    import comfy.supported_models
    import torch
    from comfy.model_management import get_torch_device
    from comfy.model_patcher import ModelPatcher

    torch.manual_seed(0)
    config = getattr(comfy.supported_models, model.config)(dict(model.arguments))
    config.set_inference_dtype(torch.bfloat16 if bf16 else torch.float32, None)
    host_model = config.get_model({}, "", device="cpu")
    host_model.eval()
    for name, weight in host_model.diffusion_model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.uniform_(weight, -1.0, 1.0).mul_((3.0 / weight[0].numel()) ** 0.5)
        else:
            torch.nn.init.constant_(weight, 1.0 if name.endswith("weight") else 0.0)
    return ModelPatcher(host_model, get_torch_device(), torch.device("cpu"))


def latent(model: Model) -> Any:
    """An empty latent, of one picture; with sound, the host's pair of latents."""
    import torch

    empty = [torch.zeros(1, *shape) for shape in model.shapes]
    if len(empty) == 1:
        return empty[0]
    from comfy.nested_tensor import NestedTensor

    return NestedTensor(empty)


def prompt(model: Model, seed: int) -> list:
    """A random conditioning of the usual length."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    settings = {"pooled_output": torch.randn(1, model.pooled, generator=generator)} if model.pooled else {}
    return [[torch.randn(1, model.tokens, model.width, generator=generator), settings]]
