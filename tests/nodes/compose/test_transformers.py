"""Nodes for transformers, before and after NASA Apply, at cfg 1.

Each is compared with the host's own network in fp64, whose cross-attentions are written out, with the same node.
"""

from __future__ import annotations

import copy

import comfy.sample
import families
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from composed import assert_close_to_exact, assert_identical
from families import Case, Condition, conditioning
from families.contract import EFFECT, steer, subtract
from families.formula import Prepared
from host_nodes import run_node
from reference import relative_error

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

# For Wan 2.1 T2V.
PATCHES = {
    "SkipLayerGuidanceDiT": (
        "nodes_slg",
        {"double_layers": "1", "single_layers": "", "scale": 2.0, "start_percent": 0.0, "end_percent": 1.0},
    ),
    "ScaleROPE": (
        "nodes_rope",
        {"scale_x": 2.0, "shift_x": 0.0, "scale_y": 1.0, "shift_y": 3.0, "scale_t": 1.5, "shift_t": 0.0},
    ),
}


def exact_model(case: Case, negative: Condition | None = None) -> ModelPatcher:
    """The case's network in fp64, which subtracts the negative from all rows of one picture."""
    model = copy.copy(case.patcher.model)
    model._modules = {**model._modules, "diffusion_model": case.reference.network}
    prepared = []
    if negative is not None:
        tokens, mask = case.reference.prepare(negative, 1)
        prepared = [Prepared(tokens=tokens, mask=mask, subtraction=subtract(negative))]
    for attention in case.reference.attentions:
        attention.subtractions = prepared
    return ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def check(name, case, patch, run, positive, negative):
    """`patch` maps a model to a model, and `run` a model to the result."""
    patched = run(patch(case.patcher))
    got = run(steer(patch(case.patcher), negative))
    assert relative_error(got, patched) > EFFECT, "NASA changes nothing here"
    assert_identical(name, "the other order", got, run(patch(steer(case.patcher, negative))))
    with torch.no_grad():
        exact = run(patch(exact_model(case, negative)))
    assert_close_to_exact(name, relative_error(got, exact))
    return patched


@pytest.mark.parametrize("name", PATCHES)
def test_a_node_that_patches_the_model(name):
    case = families.case("Wan 2.1 T2V")
    positive, negative = case.condition(1), case.condition(3)
    module, settings = PATCHES[name]

    def run(patcher):
        return case.sample(patcher, positive, positive)

    patched = check(
        name, case, lambda patcher: run_node(f"{module}.{name}", model=patcher, **settings), run, positive, negative
    )
    assert relative_error(patched, run(case.patcher)) > 1e-4, f"{name} changes nothing here"


class Encoded:
    """A VAE of LTX-Video for which every picture has the same latent, for a case's size."""

    downscale_index_formula = (8, 32, 32)

    def __init__(self, case: Case) -> None:
        channels, _, *size = case.latent_shape
        self.latent = torch.randn(1, channels, 1, *size, generator=torch.Generator().manual_seed(4))

    def encode(self, pixels):
        return self.latent


def test_guides_of_ltx_video():
    """Frames after the video's own, which both prompts get, and a noise mask that keeps them."""
    case = families.case("LTXV")
    negative = case.condition(3)
    positive, other, latent = run_node(
        "nodes_lt.LTXVAddGuide",
        positive=conditioning(case.condition(1)),
        negative=conditioning(case.condition(2)),
        vae=Encoded(case),
        latent={"samples": case.latent()},
        image=torch.zeros(1, 128, 192, 3),
        frame_idx=0,
        strength=1.0,
    )

    def run(patcher):
        noise = comfy.sample.prepare_noise(latent["samples"], 7)
        return comfy.sample.sample(
            patcher, noise, 1, 1.0, "lcm", "simple", positive, other, latent["samples"], seed=7, disable_pbar=True,
            noise_mask=latent["noise_mask"],
        )  # fmt: skip

    guided = check("LTXVAddGuide", case, lambda patcher: patcher, run, positive, negative)
    assert guided.shape[2] == case.latent_shape[1] + 1
