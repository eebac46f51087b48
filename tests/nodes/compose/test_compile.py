"""torch.compile through the host: one graph, no breaks, and no recompilation for another alpha or negative."""

from __future__ import annotations

import comfy.ldm.modules.attention as attention
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from composed import ALPHA, POSITIVE, UNWANTED, T, assert_close_to_exact, prompt, sampled, steer, subject, subtractions
from effort import some
from figures import measured
from host_nodes import run_node
from reference import Subtraction, relative_error
from torch._dynamo.utils import counters
from unets import noise

pytestmark = pytest.mark.host

OTHER = 8  # seed of another prompt


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch):
    """With PyTorch's attention, as on GPUs; the host's CPU attention queries free memory, which breaks any graph."""
    for target in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(attention, target, attention.attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(patcher, backend: str):
    """Fails at a graph break instead of falling back."""
    out = patcher.clone()
    set_torch_compile_wrapper(model=out, backend=backend, fullgraph=True)
    return out


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.both_hosts
@pytest.mark.parametrize("backend", some(["eager", "aot_eager"], 1))
def test_one_graph(backend):
    first = compiled(steer(subject().patcher), backend)
    expected = subject().reference.x0(noise(), T, prompt(POSITIVE), subtractions())
    assert_close_to_exact(f"torch.compile, {backend}", relative_error(sampled(first), expected))
    measured("composition", f"torch.compile, {backend}", "graphs", graphs(), 1)
    sampled(first)
    measured("composition", f"torch.compile, {backend}", "graphs after a second run", graphs(), 1)


@pytest.mark.full
def test_compiled_before_or_after():
    before = sampled(steer(compiled(subject().patcher, "eager")))
    assert torch.equal(sampled(compiled(steer(subject().patcher), "eager")), before)


def test_another_alpha_or_negative_is_the_same_graph():
    """One compiled model, shared by NASA Apply nodes with different values."""
    base = compiled(subject().patcher, "eager")
    sampled(steer(base))
    for changes in ({"alpha": 0.3}, {"unwanted": prompt(OTHER)}, {"alpha": 0.1, "unwanted": prompt(POSITIVE)}):
        got = sampled(steer(base, **changes))
        unwanted = changes.get("unwanted", prompt(UNWANTED))
        away = Subtraction(unwanted["context"], changes.get("alpha", ALPHA))
        expected = subject().reference.x0(noise(), T, prompt(POSITIVE), [away])
        assert_close_to_exact("torch.compile, other alpha and negative", relative_error(got, expected))
    measured("composition", "torch.compile, other alpha and negative", "graphs", graphs(), 1)


def hosts_node(patcher):
    """It drops all guards on patches, so a graph may run with another NASA Apply than the traced one."""
    return run_node("nodes_torch_compile.TorchCompileModel", model=patcher, backend="eager")


@pytest.mark.full
@pytest.mark.both_hosts
def test_the_hosts_node_uses_the_current_values():
    base = hosts_node(subject().patcher)
    for changes in ({}, {"alpha": 0.3}, {"unwanted": prompt(OTHER)}, {"unwanted": prompt(OTHER, 154)}):
        away = Subtraction(changes.get("unwanted", prompt(UNWANTED))["context"], changes.get("alpha", ALPHA))
        expected = subject().reference.x0(noise(), T, prompt(POSITIVE), [away])
        assert_close_to_exact("TorchCompileModel", relative_error(sampled(steer(base, **changes)), expected))


@pytest.mark.parametrize(
    "settings", some([(None, {}), ({}, None), ({}, {"blocks": "middle"}), ({"blocks": "middle"}, {})], 1), ids=str
)
@pytest.mark.full
def test_the_hosts_node_with_nasa_apply_added_and_removed(settings):
    base = hosts_node(subject().patcher)
    names = subject().reference.cross_attention_names()
    for changes in settings:
        patcher, away = base, []
        if changes is not None:
            layers = [name for name in names if "blocks" not in changes or name.startswith("mid_block")]
            patcher, away = steer(base, **changes), [Subtraction(prompt(UNWANTED)["context"], ALPHA, layers)]
        expected = subject().reference.x0(noise(), T, prompt(POSITIVE), away)
        assert_close_to_exact("TorchCompileModel, nodes that come and go", relative_error(sampled(patcher), expected))
