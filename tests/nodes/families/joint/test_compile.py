"""torch.compile with joint attention: a graph for the plain model and one for the steered, however the host compiles.

Without MiniMax H3: its own forward breaks the graph to read numbers, with or without NASA.
"""

from __future__ import annotations

import pytest
from comfy_api.torch_helpers import set_torch_compile_wrapper
from families.contract import steer
from families.joint import JOINT_CASES
from figures import measured
from torch._dynamo.utils import counters

from snoopi_core.guidance.methods import make_method

from ..test_compile import fresh_compiler, fullgraph, hosts_node

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.full]
__all__ = ["fresh_compiler"]

NAMES = ["Flux", "SD3.5 medium", "Qwen-Image", "Lumina 2", "Krea 2"]
# Uncompiled, the share of the attention comes from the kernels' own sums (test_share.py); in a graph by one more call.
BAR = 1e-5


@pytest.mark.parametrize(
    ("name", "compiled"), [*((name, fullgraph) for name in NAMES), ("Flux", hosts_node), ("Qwen-Image", hosts_node)]
)
def test_nasa_added_changed_and_removed(name, compiled):
    if name not in JOINT_CASES:
        pytest.skip("not in this ComfyUI")
    subject = JOINT_CASES[name]()
    positive, negative, other = (subject.condition(seed) for seed in (1, 3, 4))

    def sampled(patcher):
        return subject.sample(patcher, positive, positive)

    base = compiled(subject.patcher)
    for settings in (None, {}, None, {"alpha": 0.2}, {"condition": other}, {}):
        expected, got = (
            sampled(patcher if settings is None else steer(patcher, **{"condition": negative, **settings}))
            for patcher in (subject.patcher, base)
        )
        difference = float((got - expected).abs().max())
        measured("joint attention", name, "compiled, difference", difference, BAR)
    measured("joint attention", name, "compiled, graphs", counters["stats"]["unique_graphs"], 2)


@pytest.mark.parametrize("method", ["NAG", "VSF", "orthogonal"])
@pytest.mark.parametrize("name", ["Flux", "Qwen-Image"])
def test_other_methods(name, method):
    subject = JOINT_CASES[name]()
    positive, negative = subject.condition(1), subject.condition(3)
    base = fullgraph(subject.patcher)
    for alpha in (0.0, 0.5, 0.8):
        expected, got = (
            subject.sample(steer(patcher, negative, alpha=alpha, method=make_method(method)), positive, positive)
            for patcher in (subject.patcher, base)
        )
        difference = float((got - expected).abs().max())
        measured("methods", name, f"{method} compiled, difference", difference, BAR)
    measured("methods", name, f"{method} compiled, graphs", counters["stats"]["unique_graphs"], 2)


def test_single_blocks_compiled():
    """As other packs compile models, block by block."""
    subject = JOINT_CASES["SD3.5 medium"]()
    positive, negative = subject.condition(1), subject.condition(3)
    compiled = subject.patcher.clone()
    keys = [f"diffusion_model.joint_blocks.{index}" for index in range(subject.blocks)]
    set_torch_compile_wrapper(model=compiled, backend="eager", keys=keys)
    for settings in ({}, {"alpha": 0.2}):
        expected, got = (
            subject.sample(steer(patcher, negative, **settings), positive, positive)
            for patcher in (subject.patcher, compiled)
        )
        assert float((got - expected).abs().max()) <= BAR
        again = steer(subject.patcher, negative, **settings)
        set_torch_compile_wrapper(model=again, backend="eager", keys=keys)
        assert float((subject.sample(again, positive, positive) - expected).abs().max()) <= BAR
