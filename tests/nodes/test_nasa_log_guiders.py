"""Log lines about runs of other packs' guiders, of later passes, and of nodes of this pack that sample themselves.

The log must never stop a run, whatever the guider is.
"""

from __future__ import annotations

import logging

import comfy.samplers
import pytest
import torch
from host_world import HostStudent, pack_node
from unets import case, conditioning, empty_latent, host_sample, noise

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa
from snoopi_core.host.nasa.log import RunLog

pytestmark = pytest.mark.host


class ScaleOfEachStep(comfy.samplers.CFGGuider):
    """Keeps a list where the host keeps a number."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        scales, self.cfg = self.cfg, self.cfg[0] if isinstance(self.cfg, list) else 1.0
        try:
            return super().predict_noise(x, timestep, model_options or {}, seed)
        finally:
            self.cfg = scales


class PromptsOfItsOwn(comfy.samplers.CFGGuider):
    """Runs the model for other conditionings than its own."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        own = [{**conditioning, "uuid": "its own"} for conditioning in self.conds["positive"]]
        return comfy.samplers.calc_cond_batch(self.inner_model, [own], x, timestep, model_options or {})[0]


@pytest.fixture
def subject():
    return case("sd15")


@pytest.fixture
def unknown(subject):
    """Its model as from another loader."""
    clone = subject.patcher.clone()
    clone.attachments.pop("snoopi", None)
    return clone


def steer(subject, patcher):
    negative = conditioning(subject.condition(3))
    return apply_nasa(patcher, negative, alpha=0.5, window=Window(), blocks="all")


def guided(subject, kind, patcher, cfg=None):
    guider = kind(patcher)
    guider.set_conds(conditioning(subject.condition(1)), conditioning(subject.condition(2)))
    if cfg is not None:
        guider.set_cfg(cfg)
    sampler, sigmas = comfy.samplers.sampler_object("lcm"), torch.tensor([14.6, 0.0])
    return guider.sample(noise(), empty_latent(), sampler, sigmas, disable_pbar=True, seed=1)


def logged(caplog, level=logging.INFO):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.mark.parametrize(
    ("cfg", "shown"),
    [
        ([2.0, 1.0], "cfg is 1 to 2"),
        (torch.tensor([3.0, 5.0]), "cfg is 3 to 5"),
        ([1.0, 1.0], None),
        ("by a schedule", None),
        ({"0": 2.0}, None),
    ],
)
def test_cfg_may_be_anything(subject, unknown, caplog, cfg, shown):
    caplog.set_level(logging.INFO)
    got = guided(subject, ScaleOfEachStep, steer(subject, unknown), cfg)
    first = cfg[0] if isinstance(cfg, list) else 1.0
    assert torch.equal(got, guided(subject, comfy.samplers.CFGGuider, steer(subject, unknown), first))
    warnings = logged(caplog, logging.WARNING)
    assert any(shown in line for line in warnings) if shown else not warnings


@pytest.mark.parametrize("when", ["run_started", "run_ended"])
def test_a_log_that_fails_does_not_end_the_run(subject, unknown, caplog, monkeypatch, when):
    expected = guided(subject, comfy.samplers.CFGGuider, steer(subject, unknown))

    def fails(*args):
        raise AttributeError("a guider like no other")

    monkeypatch.setattr(RunLog, when, fails)
    assert torch.equal(guided(subject, comfy.samplers.CFGGuider, steer(subject, unknown)), expected)
    (warning,) = logged(caplog, logging.WARNING)
    assert "this sampling run cannot be described in the log" in warning


def test_a_prompt_in_another_precision_gives_no_warning(subject, unknown, caplog):
    half = conditioning(subject.condition(1))
    half[0][0] = half[0][0].half()
    host_sample(steer(subject, unknown), half, half)
    assert not logged(caplog, logging.WARNING)


def test_a_guider_with_its_own_prompts(subject, unknown, caplog):
    caplog.set_level(logging.INFO)
    plain = guided(subject, PromptsOfItsOwn, unknown)
    assert torch.equal(guided(subject, PromptsOfItsOwn, steer(subject, unknown)), plain)
    (line,) = (line for line in logged(caplog, logging.WARNING) if "acted in no step" in line)
    assert "never ran the model with the positive prompt" in line and "window" not in line


@pytest.mark.parametrize(("steps", "start", "level"), [(8, 0, logging.WARNING), (12, 6, logging.INFO)])
def test_a_later_pass_gives_no_warning(subject, unknown, caplog, steps, start, level):
    """KSampler (Advanced) from its middle, split sigmas and detailers have few steps of many."""
    caplog.set_level(logging.INFO)
    prompts = (conditioning(subject.condition(seed)) for seed in (1, 2))
    host_sample(steer(subject, unknown), *prompts, cfg=4.0, steps=steps, start_step=start)
    assert [record.levelno for record in caplog.records if "cfg is 4" in record.getMessage()] == [level]


class TestNodesThatSampleByThemselves:
    @pytest.fixture(scope="class")
    def student(self):
        return HostStudent()

    @pytest.fixture
    def inputs(self, student):
        return student.encode("a blue shape"), student.encode("square"), {"samples": torch.zeros(1, 4, 8, 8)}

    def lines(self, caplog):
        return [line for line in logged(caplog) if line.startswith(("NASA", "One-Step"))]

    def test_a_sweeps_log_lines_have_its_name(self, student, inputs, caplog):
        caplog.set_level(logging.INFO)
        positive, negative, latent = inputs
        node = pack_node("nasa_scale_sweep", "NASAScaleSweep")
        with torch.inference_mode():
            node.execute(student.model, positive, negative, latent, student.vae, "0, 0.3, 1", 2)
        recipe, *runs = self.lines(caplog)
        assert recipe.startswith("NASA Scale Sweep: 1 step at timestep 999")
        begin = "NASA Scale Sweep: NASA acted in 1 of 1 call(s) of the model: alpha "
        assert [line.startswith(begin + alpha) for line, alpha in zip(runs, ("0.3", "1"), strict=True)] == [True] * 2

    def test_an_inspections_log_lines_have_its_name(self, student, inputs, caplog):
        caplog.set_level(logging.INFO)
        positive, negative, latent = inputs
        with torch.inference_mode():
            steered = pack_node("nasa_apply", "NASAApply").execute(student.model, negative, 1.0).result[0]
            caplog.clear()
            pack_node("nasa_inspect", "NASAInspect").execute(steered, positive, latent, 2)
        lines = self.lines(caplog)
        assert lines and all(line.startswith("NASA Inspect: ") for line in lines)

    def test_an_automatic_alpha_is_logged_with_its_origin(self, student, inputs, caplog):
        caplog.set_level(logging.INFO)
        pack_node("nasa_apply", "NASAApply").execute(student.model, inputs[1], 0.1, alpha_mode="auto")
        (line,) = logged(caplog)
        assert line.startswith("NASA Apply: alpha 1 in 7 of 7") and line.endswith("; from the model's file")
