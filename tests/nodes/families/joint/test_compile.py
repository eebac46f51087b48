"""torch.compile with joint attention: a graph for the plain model and one for the steered, however the host compiles.

MiniMax H3's own forward reads numbers, which breaks the graph with or without NASA: each of its blocks is a graph.
"""

from __future__ import annotations

import pytest
from comfy_api.torch_helpers import set_torch_compile_wrapper
from families.contract import steer
from families.joint.networks import NETWORKS, network
from figures import measured
from torch._dynamo.utils import counters

from snoopi_core.guidance.methods import make_method

from ..test_compile import fresh_compiler, fullgraph, hosts_node

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.full]
__all__ = ["fresh_compiler"]

# Uncompiled, the share of the attention comes from the kernels' own sums (test_share.py); in a graph by one more call.
BAR = 2e-5


def in_parts(patcher):
    out = patcher.clone()
    set_torch_compile_wrapper(model=out, backend="eager", fullgraph=False)
    return out


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        *((name, in_parts if name == "MiniMax H3" else fullgraph) for name in NETWORKS),
        *((name, hosts_node) for name in ("Flux", "Qwen-Image")),
    ],
)
def test_nasa_added_changed_and_removed(name, compiled):
    """Another alpha and another negative add no graph."""
    subject, graphs = network(name), []
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
        graphs.append(counters["stats"]["unique_graphs"])
    plain, steered, *later = graphs
    assert steered > plain and set(later) == {steered}
    bar = plain + subject.joint_blocks if compiled is in_parts else 2
    measured("joint attention", name, "compiled, graphs", steered, bar)


@pytest.mark.parametrize("method", ["NAG", "VSF", "orthogonal"])
@pytest.mark.parametrize("name", ["Flux", "Qwen-Image"])
def test_other_methods(name, method):
    subject = network(name)
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
    subject = network("SD3.5 medium")
    positive, negative = subject.condition(1), subject.condition(3)
    compiled = subject.patcher.clone()
    keys = [f"diffusion_model.joint_blocks.{index}" for index in range(subject.joint_blocks)]
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
