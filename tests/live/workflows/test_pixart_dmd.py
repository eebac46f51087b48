"""The template for PixArt-DMD: its published file, a pickle in diffusers' layout, is loaded by the host's own loader.

The host takes PixArt-alpha 512 for PixArt-sigma, which scales latents differently; the template multiplies them back.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_models import small_pixart
from templates import api_file, named

from snoopi_core.host.loading.loader import load_checkpoint
from snoopi_core.host.one_step import one_step

pytestmark = pytest.mark.host

SIDE = 34  # the host wants at least 33 of a PixArt


@pytest.fixture(scope="module")
def nodes() -> dict[str, dict[str, Any]]:
    """The template's inputs, by the class of node."""
    prompt = json.loads(api_file(named("PixArt-DMD")).read_text(encoding="utf-8"))
    return {node["class_type"]: node["inputs"] for node in prompt.values()}


def test_the_latents_are_those_of_pixart_alpha(host_base: Path, tmp_path: Path, nodes: dict[str, Any]) -> None:
    """Against PG-SB Loader with the right latent format: the same weights, the same seed."""
    host = importlib.import_module("nodes")
    weights = small_pixart(False).state_dict()
    folder = host_base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / nodes["UNETLoader"]["unet_name"])
    (stock,) = host.UNETLoader().load_unet(**nodes["UNETLoader"])
    save_file(weights, tmp_path / "converted.safetensors")
    ours, _, _ = load_checkpoint(tmp_path / "converted.safetensors", None, "SD1.x")

    positive = [[torch.randn(1, 20, 4096, generator=torch.Generator().manual_seed(1)), {}]]
    settings = {name: nodes["SnoopiOneStepSampler"][name] for name in ("seed", "timesteps", "preset")}
    drawn = []
    for patcher in (stock, ours):
        latent = {"samples": torch.zeros(1, 4, SIDE, SIDE)}
        drawn.append(one_step(patcher, positive, latent, **settings))
    importlib.import_module("comfy_extras.nodes_post_processing")  # these two import each other; this one comes first
    multiply = importlib.import_module("comfy_extras.nodes_latent").LatentMultiply
    scaled = multiply.execute(drawn[0], nodes["LatentMultiply"]["multiplier"]).result[0]["samples"]

    wanted = drawn[1]["samples"]
    before, after = ((s - wanted).norm() / wanted.norm() for s in (drawn[0]["samples"], scaled))
    print(f"relative error {before:.3f} as the host has them, {after:.4f} as the template multiplies them")
    assert before > 0.3
    assert after < 0.01  # the widget has two digits: 0.72 for 0.71507
