"""Joint attention in other dtypes, with LoRAs and with little memory: NASA adds nothing to the plain model's error.

By the prompt as negative (identity.py)."""

from __future__ import annotations

import pytest
import torch
from comfy.patcher_extension import CallbacksMP
from families.contract import BAR, EFFECT, steer
from families.joint import JOINT_CASES
from families.joint.identity import without_prompt
from families.joint.networks import NETWORKS, all_networks, network
from families.steps import lora_on, with_lora
from figures import measured
from reference import relative_error

from snoopi_core.host.families import family_of
from snoopi_core.host.nasa import apply

pytestmark = pytest.mark.host

ALPHA, STRONG = 0.5, 2.0
FP8 = torch.float8_e4m3fn
DTYPES = [(torch.bfloat16, None), (torch.float16, None), (FP8, torch.float32), (FP8, torch.bfloat16)]
ROUNDING = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""The plain networks' own is as much."""
NOT_IN_FP8 = ("Z-Image in pixel space", "Ideogram 4")  # the latter in 0.24.0


@pytest.mark.parametrize(
    ("name", "dtype", "computed_in"),
    [
        pytest.param(name, *each, marks=() if (name, each) == ("Qwen-Image", DTYPES[0]) else pytest.mark.full)
        for name in NETWORKS
        for each in DTYPES
    ],
)
def test_lower_precision(name, dtype, computed_in):
    """Against the network with the same weights, so that only the rounding of computing is left."""
    subject = network(name)
    patcher, positive, computed_in = subject.stored_as(dtype, computed_in), subject.condition(1), computed_in or dtype
    if dtype == FP8 and name == "MiniMax H3":  # the host's rotations do not take norms in fp8
        for weight in patcher.model.diffusion_model.parameters():
            weight.data = weight.data.to(computed_in if weight.ndim == 1 else weight.dtype)
    try:
        plain = subject.sample(patcher, positive, positive)
    except NotImplementedError as error:
        if dtype == FP8 and name in NOT_IN_FP8:
            pytest.skip(f"ComfyUI's own network does not run in fp8: {error}")
        raise
    exact = subject.sample(subject.patcher, positive, positive)
    assert relative_error(plain, exact) > 1e-4, "nothing was rounded here"
    expected = without_prompt(subject, positive, STRONG, patcher=patcher)
    # In HiDream, rounding also sends tokens to other experts.
    bar = ROUNDING[computed_in] * (2 if name == "HiDream-I1" else 1)
    assert relative_error(plain, expected) > bar, "NASA has to change more, or the comparison proves nothing"
    got = subject.sample(steer(patcher, positive, alpha=STRONG), positive, positive)
    how = f"{dtype}".removeprefix("torch.") + (
        f" computed in {computed_in}".replace("torch.", "") if computed_in != dtype else ""
    )
    measured("joint attention", name, how, relative_error(got, expected), bar)


@pytest.mark.parametrize("name", all_networks(in_the_gate={"Mochi"}))
def test_a_lora_before_and_after_and_with_little_memory(name):
    """Of the first and the last block."""
    subject = network(name)
    positive, layers = subject.condition(1), family_of(subject.patcher.model).layers(subject.patcher.model)
    blocks = [layers[0].module, layers[len(layers) - 1].module]
    lora = lora_on(subject.patcher.model.diffusion_model, blocks, 5)
    changed = with_lora(subject.patcher, lora)
    expected = without_prompt(subject, positive, ALPHA, patcher=changed)
    assert relative_error(without_prompt(subject, positive, ALPHA), expected) > EFFECT
    before = steer(changed, positive, alpha=ALPHA)
    after = with_lora(steer(subject.patcher, positive, alpha=ALPHA), lora)
    short = after.clone()
    short.add_callback(CallbacksMP.ON_PRE_RUN, lambda patcher: patcher.partially_unload(torch.device("cpu"), 1 << 40))
    got = subject.sample(before, positive, positive)
    measured("joint attention", name, "with a LoRA", relative_error(got, expected), 2 * BAR)
    assert torch.equal(subject.sample(after, positive, positive), got)
    assert torch.equal(subject.sample(short, positive, positive), got)


@pytest.mark.full
def test_areas_of_other_sizes_get_negatives_of_their_own(monkeypatch):
    """The positions of Qwen-Image's text depend on the size of the picture, and the host crops it to an area."""
    subject = JOINT_CASES["Qwen-Image"]()
    negative = subject.condition(3)
    areas = ((8, 12, 0, 0), (12, 8, 0, 8))
    positives = [{**subject.condition(seed), "area": area} for seed, area in zip((1, 5), areas, strict=True)]
    several = subject.sample(steer(subject.patcher, negative), positives, subject.condition(2), steps=2)
    # Without anything that is kept from call to call.
    monkeypatch.setattr(apply, "_weights_are_constant", lambda model: False)
    again = subject.sample(steer(subject.patcher, negative), positives, subject.condition(2), steps=2)
    assert torch.equal(again, several)
