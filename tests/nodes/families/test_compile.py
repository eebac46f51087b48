"""torch.compile of transformers: a graph for the plain model and one for the steered, however the host compiles.

Without HunyuanDiT, LTX-2 and ACE-Step 1.5: their own forwards break the graph, with or without NASA (rotations in
NumPy, slices as arguments, sizes read from tensors).
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import comfy.ldm.modules.attention as attention
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from families import case
from families.contract import steer
from figures import measured
from host_nodes import run_node
from torch._dynamo import eval_frame
from torch._dynamo.utils import counters

from snoopi_core.host.torch_compile import uncompiled

pytestmark = [pytest.mark.host, pytest.mark.slow]

PATIENCE = 300.0  # seconds: only a deadlock takes longer


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch):
    """With PyTorch's attention, as on GPUs; the host's CPU attention queries free memory, which breaks any graph."""
    for name, module in list(sys.modules.items()):
        if name.startswith("comfy.ldm"):
            for target in ("optimized_attention", "optimized_attention_masked"):
                if hasattr(module, target):
                    monkeypatch.setattr(module, target, attention.attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def fullgraph(patcher):
    """Fails at a graph break instead of falling back."""
    out = patcher.clone()
    set_torch_compile_wrapper(model=out, backend="eager", fullgraph=True)
    return out


def hosts_node(patcher):
    """The host's node, which drops all guards on options."""
    return run_node("nodes_torch_compile.TorchCompileModel", model=patcher, backend="eager")


NAMES = [
    *("PixArt-alpha 512", "Wan 2.1 T2V", "Wan 2.1 I2V", "LTXV", "Cosmos-Predict2", "Anima"),
    *("Wan 2.1 VACE", "Kandinsky 5 image", "Stable Audio 1"),
]
IN_THE_GATE = {("PixArt-alpha 512", hosts_node), ("Wan 2.1 I2V", fullgraph)}
# What differs between the two is shared by all families.
BY_THE_HOSTS_NODE = ("PixArt-alpha 512", "Wan 2.1 I2V", "Cosmos-Predict2", "Kandinsky 5 image")
PAIRS = [
    pytest.param(*pair, marks=() if pair in IN_THE_GATE else pytest.mark.full)
    for pair in [*((name, fullgraph) for name in NAMES), *((name, hosts_node) for name in BY_THE_HOSTS_NODE)]
]


@pytest.mark.parametrize(("name", "compiled"), PAIRS)
def test_nasa_added_changed_and_removed(name, compiled):
    subject = case(name)
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
        measured("families", name, "compiled, difference", difference, 0.0)
    measured("families", name, "compiled, graphs", counters["stats"]["unique_graphs"], 2)


def test_several_threads_restore_the_compilers_stance():
    """The host runs several GPUs in threads; a stance that is not restored would disable compilation permanently."""
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def first():
        with uncompiled:
            first_is_in.set()
            assert second_is_in.wait(PATIENCE)
        seen.append(eval_frame._stance.stance)
        first_is_out.set()

    def second():
        assert first_is_in.wait(PATIENCE)
        with uncompiled:
            second_is_in.set()
            assert first_is_out.wait(PATIENCE)
            seen.append(eval_frame._stance.stance)

    before = eval_frame._stance
    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert seen == ["force_eager", "force_eager"]  # while any thread is inside
    assert eval_frame._stance == before


def test_the_context_is_reentrant_while_waiting_for_a_thread_inside():
    """NASA Inspect observes a step in which the negative is prepared up to the first block, on each GPU."""

    def inside():
        with uncompiled:
            return eval_frame._stance.stance

    before = eval_frame._stance
    with uncompiled, ThreadPoolExecutor(1) as pool:
        assert inside() == "force_eager"
        assert pool.submit(inside).result() == "force_eager"
        assert eval_frame._stance.stance == "force_eager"
    assert eval_frame._stance == before
