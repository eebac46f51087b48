"""The cache of a negative's keys and values in a sampling run, which ends with the run."""

from __future__ import annotations

import gc
import weakref

import comfy.hooks
import pytest
import torch
from torch.overrides import TorchFunctionMode
from unets import case, conditioning, host_sample

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.families.unet import UNetLayer
from snoopi_core.host.nasa import sampling_run as run_module
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host


@pytest.fixture
def subject():
    return case("sd15")


@pytest.fixture
def projected(monkeypatch):
    """A list with an entry for each computation of K- and V- by a layer."""
    calls = []
    original = UNetLayer.keys_values

    def counted(self, context):
        calls.append(self.block)
        return original(self, context)

    monkeypatch.setattr(UNetLayer, "keys_values", counted)
    return calls


def steer(subject, patcher=None, seed=3):
    negative = conditioning(subject.condition(seed))
    return apply_nasa(patcher or subject.patcher, negative, alpha=0.5, window=Window(), blocks="all")


def sampled(subject, patcher, steps):
    return host_sample(patcher, conditioning(subject.condition(1)), conditioning(subject.condition(2)), steps=steps)


def layers(subject):
    return len(subject.reference.cross_attention_names())


@pytest.mark.both_hosts
def test_keys_and_values_are_computed_once_per_run(subject, projected):
    steered = steer(subject)
    sampled(subject, steered, steps=4)
    assert len(projected) == layers(subject)
    sampled(subject, steered, steps=4)
    assert len(projected) == 2 * layers(subject)


def test_one_step_caches_nothing(subject, projected):
    sampled(subject, steer(subject), steps=1)
    assert len(projected) == layers(subject)


def test_the_cache_does_not_change_the_result(subject, monkeypatch):
    steered = steer(subject)
    kept = sampled(subject, steered, steps=4)
    monkeypatch.setattr(run_module.Run, "cached", lambda self, key, make: make())
    assert torch.equal(sampled(subject, steered, steps=4), kept)


def test_hooks_disable_the_cache(subject, projected):
    patched = subject.patcher.clone()
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=1.0)
    hook.need_weight_init = False
    patched.hook_patches = {hook.hook_ref: {}}
    sampled(subject, steer(subject, patched), steps=4)
    assert len(projected) == 4 * layers(subject)


@pytest.mark.both_hosts
def test_the_cache_is_freed_after_the_run(subject, monkeypatch):
    runs = []
    original = run_module.Run.__init__

    def noted(self, *args):
        original(self, *args)
        runs.append(weakref.ref(self))

    monkeypatch.setattr(run_module.Run, "__init__", noted)
    steered = steer(subject)
    sampled(subject, steered, steps=3)
    gc.collect()
    assert len(runs) == 1 and runs[0]() is None
    assert "snoopi_run" not in steered.model_options["transformer_options"]


class _Reads(TorchFunctionMode):
    """Counts `float(tensor)`, for which a GPU must finish everything before; the host reads its tables otherwise."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += getattr(function, "__name__", "") == "__float__"
        return function(*args, **(kwargs or {}))


def test_the_noise_level_is_read_once_a_step_however_many_windows_ask_for_it(subject):
    def reads(windows):
        steered = subject.patcher
        for seed, window in enumerate(windows):
            negative = conditioning(subject.condition(seed + 3))
            steered = apply_nasa(steered, negative, alpha=0.1, window=window, blocks="all")
        with _Reads() as counted:
            sampled(subject, steered, steps=2)
        return counted.count

    always, half = Window(), Window(start_percent=0.0, end_percent=0.99)
    none, one, three = reads([always]), reads([half]), reads([half, half, half])
    assert none + 2 == one == three
