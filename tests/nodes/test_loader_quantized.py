"""PG-SB Loader: files whose weights need scales are refused, and what the message advises works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from exports import assert_refused
from figures import measured
from full_size_parts import PREFIX
from host_nodes import run_node
from reference import relative_error
from safetensors.torch import load_file, save_file
from small_models import unet_file
from unets import host_sample

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

ADVICE = (
    "which PG-SB Loader cannot read: open it with ComfyUI's Load Checkpoint or Load Diffusion Model node, whose MODEL "
    "NASA Apply takes; or take the model in fp16, bf16 or plain fp8"
)


def scaled_fp8(path: Path) -> dict[str, torch.Tensor]:
    """A file whose attention is in fp8 with a scale for each layer; returns the weights that it stands for."""
    unet_file(path)
    weights = load_file(path)
    meant = dict(weights)
    for name in [name for name in weights if ".attn" in name and name.endswith(".weight")]:
        scale = weights[name].abs().max() / 448
        small = (weights[name] / scale).to(torch.float8_e4m3fn)
        weights[name], weights[name.removesuffix("weight") + "scale_weight"] = small, scale
        meant[name] = small.float() * scale
    save_file({**weights, PREFIX + "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, path)
    return meant


def test_scaled_fp8_is_refused_and_nasa_acts_in_the_hosts_own_model(host_base, loader):
    folder = host_base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    meant = scaled_fp8(folder / "scaled.safetensors")
    assert_refused(folder / "scaled.safetensors", rf"quantized with scales \(scaled fp8, .*, first \S+\), {ADVICE}")
    save_file(meant, folder / "meant.safetensors")
    models = (
        run_node("UNETLoader", unet_name="scaled.safetensors", weight_dtype="default"),
        loader.execute("meant.safetensors").result[0],
    )
    torch.manual_seed(0)
    prompt, negative = ([[torch.randn(1, 77, 768), {}]] for _ in range(2))
    plain, steered = [], []
    for model in models:
        nasa = apply_nasa(model, negative, alpha=0.5, window=Window(), blocks="all")
        plain.append(host_sample(model, prompt, prompt, cfg=1.0))
        steered.append(host_sample(nasa, prompt, prompt, cfg=1.0))
    measured("loader", "SD1.5 scaled fp8, host's loader", "relative error with NASA", relative_error(*steered), 2e-6)
    assert relative_error(steered[0], plain[0]) > 1e-3


@pytest.mark.parametrize(
    ("added", "header", "message"),
    [
        ({PREFIX + "a.comfy_quant": torch.zeros(2, dtype=torch.uint8)}, {}, f"first {PREFIX}a.comfy_quant.*{ADVICE}"),
        ({"b.weight_scale": torch.zeros(())}, {}, f"first b.weight_scale.*{ADVICE}"),
        ({}, {"_quantization_metadata": json.dumps({"layers": {}})}, f"_quantization_metadata in its header.*{ADVICE}"),
        (
            {"c.weight.absmax": torch.zeros(2)},
            {},
            r"\(bitsandbytes .*\), which PG-SB Loader cannot read: take the model",
        ),
    ],
    ids=["int8 convrot", "fp8 of newer hosts", "header", "bitsandbytes"],
)
def test_other_ways_are_recognised(folder, added, header, message):
    save_file({"x": torch.zeros(2), **added}, folder / "quantized.safetensors", metadata=header)
    assert_refused(folder / "quantized.safetensors", message)
