"""Joint attention in other dtypes, with LoRAs and with little memory: NASA adds nothing to the plain model's error."""

from __future__ import annotations

import comfy.model_patcher
import comfy.supported_models as supported
import pytest
import torch
from comfy.patcher_extension import CallbacksMP
from families.contract import BAR, EFFECT, steer, subtract
from families.joint import JOINT_CASES
from families.joint.networks import NETWORKS
from families.steps import lora_of, merged, with_lora
from figures import measured
from reference import relative_error

from snoopi_core.host.nasa import apply

pytestmark = pytest.mark.host

FP8 = torch.float8_e4m3fn
DTYPES = [(torch.bfloat16, None), (torch.float16, None), (FP8, torch.float32), (FP8, torch.bfloat16)]
GATE = [("Qwen-Image", torch.bfloat16, None)]
ALL = [(name, *dtypes) for name in ("Flux", "SD3.5 medium", "Qwen-Image", "Z-Image") for dtypes in DTYPES]


def stored_as(name, dtype, computed_in):
    """The same network with its weights in another dtype."""
    declared, original = NETWORKS[name], JOINT_CASES[name]()
    config = getattr(supported, declared.config)(dict(declared.arguments))
    config.set_inference_dtype(dtype, computed_in)
    model = config.get_model({}, "", device="cpu").eval()
    model.diffusion_model.load_state_dict(original.patcher.model.diffusion_model.state_dict())
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


@pytest.mark.parametrize(
    ("name", "dtype", "computed_in"),
    [each if each in GATE else pytest.param(*each, marks=pytest.mark.full) for each in ALL],
)
def test_lower_precision(name, dtype, computed_in):
    subject = JOINT_CASES[name]()
    patcher, positive, negative = stored_as(name, dtype, computed_in), subject.condition(1), subject.condition(3)
    plain = relative_error(subject.sample(patcher, positive, positive, rows=2), subject.expected(positive, rows=2))
    assert plain > 1e-4, "nothing was rounded here"
    expected = subject.expected(positive, [subtract(negative)], rows=2)
    error = relative_error(subject.sample(steer(patcher, negative), positive, positive, rows=2), expected)
    how = f"{dtype}".removeprefix("torch.") + (
        f" computed in {computed_in}".replace("torch.", "") if computed_in else ""
    )
    # Rounding depends on the values. A lost dtype would increase the error by far more than half.
    measured("joint attention", name, how, error, 1.5 * plain)


_WITH_LORA = ("Flux", "SD3.5 medium", "Qwen-Image", "Lumina 2", "Krea 2")


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in _WITH_LORA if name in JOINT_CASES])
def test_a_lora_before_and_after_and_with_little_memory(name):
    subject = JOINT_CASES[name]()
    positive, negative = subject.condition(1), subject.condition(3)
    lora = lora_of(subject, 5)
    before = steer(with_lora(subject.patcher, lora), negative)
    after = with_lora(steer(subject.patcher, negative), lora)
    short = after.clone()
    short.add_callback(CallbacksMP.ON_PRE_RUN, lambda patcher: patcher.partially_unload(torch.device("cpu"), 1 << 40))
    got = subject.sample(before, positive, positive)
    with merged(subject, lora):
        expected = subject.expected(positive, [subtract(negative)])
    assert relative_error(subject.expected(positive, [subtract(negative)]), expected) > EFFECT
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
