"""Log lines about a sampling run, once per run: what was done, and probable mistakes."""

from __future__ import annotations

import logging

import pytest
import torch
from families import case as transformer_case
from families.contract import steer as steer_transformer
from host_nodes import run_node
from host_world import TEACHER, HostStudent, pack_node
from unets import case, conditioning, empty_latent, host_sample

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host


@pytest.fixture
def subject():
    return case("sd15")


@pytest.fixture(scope="module")
def models():
    """The student, which has a recipe, the teacher, which has none, and their text encoder."""
    return HostStudent(), HostStudent(TEACHER)


def steer(subject, patcher=None, *, negative=3, alpha=0.5, blocks="all", **window):
    prompt = conditioning(subject.condition(negative))
    return apply_nasa(patcher or subject.patcher, prompt, alpha=alpha, window=Window(**window), blocks=blocks)


def sampled(subject, patcher, **settings):
    prompts = (conditioning(subject.condition(seed)) for seed in (1, 2))
    return host_sample(patcher, *prompts, **settings)


def logged(caplog, level=logging.INFO) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level and r.getMessage().startswith("NASA Apply")]


@pytest.fixture
def heard(caplog):
    """Drops log lines of the NASA Apply node itself."""
    caplog.set_level(logging.INFO)

    def listen(patcher):
        caplog.clear()
        return patcher

    return listen


def test_what_was_done(subject, caplog, heard):
    sampled(subject, heard(steer(subject, steer(subject), negative=4, alpha=0.2, blocks="middle")), steps=3)
    family = "attention layers of Stable Diffusion UNets (SD1.x, SD2.x, SDXL)"
    done = f"alpha 0.5 in 7 of 7 {family}; alpha 0.2 in 1 of 7 {family}"
    assert logged(caplog) == [f"NASA Apply acted in 3 of 3 call(s) of the model: {done}"]
    assert not logged(caplog, logging.WARNING)


def test_every_run_is_logged(subject, caplog, heard):
    """ComfyUI does not run an unchanged node again, but its sampler runs with each seed."""
    steered = heard(steer(subject))
    for seed in (1, 2):
        sampled(subject, steered, seed=seed)
    assert len(logged(caplog)) == 2


def test_a_window_that_holds_some_of_the_steps(subject, caplog, heard):
    sampled(subject, heard(steer(subject, end_percent=0.5)), steps=4)
    (line,) = logged(caplog)
    assert line.startswith("NASA Apply acted in 2 of 4 call(s)")
    assert line.endswith(", from start_percent 0 to end_percent 0.5")


class TestCfg:
    @pytest.mark.parametrize("steps", [1, 4])
    def test_few_steps_with_cfg_are_warned_of_once(self, subject, caplog, heard, steps):
        sampled(subject, heard(steer(subject)), cfg=4.0, steps=steps)
        # Our own file states that it is not a student.
        assert not logged(caplog, logging.WARNING)
        unknown = steer(subject, self.unknown(subject))
        sampled(subject, heard(unknown), cfg=4.0, steps=steps)
        (warning,) = logged(caplog, logging.WARNING)
        assert "cfg is 4, so the sampler's own negative acts in addition" in warning and "cfg 1" in warning

    def test_many_steps_with_cfg_are_logged(self, subject, caplog, heard):
        sampled(subject, heard(steer(subject, self.unknown(subject))), cfg=4.0, steps=12)
        assert not logged(caplog, logging.WARNING)
        assert sum("cfg is 4" in line for line in logged(caplog)) == 1

    @pytest.mark.parametrize("start", [0, 6])
    @pytest.mark.parametrize(("number", "level"), [(0, logging.WARNING), (1, logging.INFO)])
    def test_a_student_is_warned_of_and_a_teacher_is_not(self, models, caplog, heard, number, level, start):
        world = models[number]
        model = pack_node("nasa_apply", "NASAApply").execute(world.model, world.encode("square"), 0.5).result[0]
        prompt = world.encode("a blue shape")
        with torch.inference_mode():
            host_sample(heard(model), prompt, world.encode("blurred"), cfg=3.0, steps=12, start_step=start)
        assert sum("cfg is 3" in line for line in logged(caplog, level)) == 1
        assert sum("cfg is 3" in line for line in logged(caplog, logging.WARNING)) == (number == 0)

    def test_cfg_1_is_not_mentioned(self, subject, caplog, heard):
        sampled(subject, heard(steer(subject, self.unknown(subject))), cfg=1.0)
        assert not any("cfg" in record.getMessage() for record in caplog.records)

    def test_both_scales_of_dual_cfg(self, subject, caplog, heard):
        prompts = {f"cond{n}": conditioning(subject.condition(n)) for n in (1, 2)}
        negative, model = conditioning(subject.condition(4)), heard(steer(subject, self.unknown(subject)))
        settings = {"cfg_conds": 2.0, "cfg_cond2_negative": 1.5, "style": "regular"}
        guider = run_node("nodes_custom_sampler.DualCFGGuider", model=model, negative=negative, **prompts, **settings)
        run_node(
            "nodes_custom_sampler.SamplerCustomAdvanced",
            noise=run_node("nodes_custom_sampler.RandomNoise", noise_seed=1),
            guider=guider,
            sampler=run_node("nodes_custom_sampler.KSamplerSelect", sampler_name="euler"),
            sigmas=run_node("nodes_custom_sampler.BasicScheduler", model=model, scheduler="simple", steps=2, denoise=1),
            latent_image={"samples": empty_latent()},
        )
        assert any("cfg is 2 and 1.5" in line for line in logged(caplog, logging.WARNING))

    @staticmethod
    def unknown(subject):
        clone = subject.patcher.clone()
        clone.attachments.pop("snoopi", None)
        return clone


@pytest.mark.parametrize(("alpha", "count"), [(2.9, 0), (3.0, 1), (4.0, 1)])
def test_an_alpha_far_above_the_files_own_is_warned_of_once(models, caplog, heard, alpha, count):
    student = models[0]
    model = pack_node("nasa_apply", "NASAApply").execute(student.model, student.encode("square"), alpha).result[0]
    prompt = student.encode("a blue shape")
    with torch.inference_mode():
        host_sample(heard(model), prompt, prompt, cfg=1.0, steps=3)
    warnings = logged(caplog, logging.WARNING)
    assert len(warnings) == count
    assert all(f"alpha is {alpha:g}, but this model's own is 1" in warning for warning in warnings)


class TestTheNegativeIsThePrompt:
    def test_it_is_warned_of_once(self, subject, caplog, heard):
        sampled(subject, heard(steer(subject, steer(subject), negative=1)), steps=3)
        (warning,) = logged(caplog, logging.WARNING)
        assert "a negative is the same as the prompt" in warning

    def test_other_prompts_are_not(self, subject, caplog, heard):
        sampled(subject, heard(steer(subject, negative=2)), steps=3)  # this is the sampler's own negative
        assert not logged(caplog, logging.WARNING)


class TestAPatchAfterwards:
    """A patch that replaces the forward of a cross-attention where NASA acts.

    Patches at the attention's address are in compose/test_attention.py, forwards of UNets in
    compose/test_replaced_forward.py.
    """

    @staticmethod
    def replaced(subject, forward):
        patched = steer_transformer(subject.patcher, subject.condition(3))
        patched.add_object_patch("diffusion_model.blocks.1.cross_attn.forward", forward)
        return patched

    def test_one_that_calls_what_it_replaces_changes_nothing(self):
        subject = transformer_case("Wan 2.1 T2V")
        before = subject.patcher.model.diffusion_model.blocks[1].cross_attn.forward
        prompt = subject.condition(1)
        plain = subject.sample(steer_transformer(subject.patcher, subject.condition(3)), prompt, prompt)
        patched = self.replaced(subject, lambda *args, **kwargs: before(*args, **kwargs))
        assert torch.equal(subject.sample(patched, prompt, prompt), plain)

    def test_one_that_bypasses_the_layer_is_detected(self):
        subject = transformer_case("Wan 2.1 T2V")
        prompt = subject.condition(1)
        with pytest.raises(ValueError, match=r"NASA cannot steer block\.1: another node has replaced"):
            subject.sample(self.replaced(subject, lambda x, *args, **kwargs: x), prompt, prompt)
        subject.patcher.model.diffusion_model.blocks[1].cross_attn.__dict__.pop("forward", None)
