"""Other dtypes and other attention functions of the host: NASA adds nothing to the plain model's own error."""

from __future__ import annotations

import comfy.ldm.modules.attention as attention
import pytest
import torch
from composed import POSITIVE, T, assert_close_to_exact, assert_identical, prompt, sampled, steer, subject, subtractions
from host_nodes import run_node
from reference import relative_error
from unets import noise, random_unet, stock_model

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

FP8, FP8_WIDE = torch.float8_e4m3fn, torch.float8_e5m2
DTYPES = [  # of the weights; of the activations, if the host casts layer by layer
    (torch.bfloat16, None),
    (torch.float16, None),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
    (FP8, torch.float32),
    (FP8, torch.bfloat16),
    (FP8_WIDE, torch.float16),
]


def exact(steered: bool) -> torch.Tensor:
    return subject().reference.x0(noise(4), T, prompt(POSITIVE), subtractions() if steered else ())


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(("dtype", "computed_in"), DTYPES, ids=str)
def test_lower_precision(dtype, computed_in):
    patcher = stock_model(random_unet("sd15"), "sd15", dtype, computed_in)
    plain, steered = sampled(patcher, rows=4), sampled(steer(patcher), rows=4)
    error = relative_error(plain, exact(False))
    assert error > 1e-4, "nothing was rounded here"
    how = name_of(dtype) + (f" computed in {name_of(computed_in)}" if computed_in else "")
    # Rounding depends on the values. A lost dtype would increase the error by far more than half.
    assert_close_to_exact(how, relative_error(steered, exact(True)), 1.5 * error)


def test_the_hosts_node_for_the_dtype_of_activations():
    def node(patcher):
        return run_node("nodes_model_advanced.ModelComputeDtype", model=patcher, dtype="bf16")

    plain, steered = sampled(node(subject().patcher), rows=4), sampled(steer(node(subject().patcher)), rows=4)
    error = relative_error(plain, exact(False))
    assert error > 1e-4, "nothing was rounded here"
    assert_identical("ModelComputeDtype", "the other order", steered, sampled(node(steer(subject().patcher)), rows=4))
    assert_close_to_exact("ModelComputeDtype", relative_error(steered, exact(True)), 1.5 * error)


@pytest.mark.parametrize("name", ["basic", "split", "sub_quad", "pytorch"])
def test_attention_functions_of_the_host(name, monkeypatch):
    """The host chooses one at start; each must be used for both texts."""
    counts, function = [], getattr(attention, f"attention_{name}")

    def counted(*args, **kwargs):
        counts[-1] += 1
        return function(*args, **kwargs)

    for target in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(attention, target, counted)
    out = []
    for patcher in (subject().patcher, steer(subject().patcher)):
        counts.append(0)
        out.append(sampled(patcher, rows=4))
    assert counts[1] - counts[0] == len(subject().reference.cross_attention_names())
    assert_close_to_exact(f"attention_{name}", relative_error(out[1], exact(True)))
    assert relative_error(out[0], exact(False)) < 2e-6
