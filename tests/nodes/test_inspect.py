"""NASA Inspect changes nothing, its numbers equal the formula's, and it explains them."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from host_nodes import run_node
from host_world import HostStudent, pack_node
from reference import Subtraction
from unets import SIDE, case, conditioning, empty_latent

from snoopi_core.guidance.methods import make_method
from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.families import family_of
from snoopi_core.host.inspect import StrengthObserver, first_step, inspect, observed_step
from snoopi_core.host.loading.model_sampling import sigma_at
from snoopi_core.host.nasa.apply import apply_nasa
from snoopi_core.host.one_step import one_step, sample_plan

pytestmark = pytest.mark.host

ALPHA, SEED = 0.5, 7


@pytest.fixture
def subject():
    return case("sd15")


def steer(subject, patcher=None, *, negative=3, alpha=ALPHA, blocks="all", window=None, **settings):
    negative = conditioning(subject.condition(negative), **settings)
    return apply_nasa(patcher or subject.patcher, negative, alpha=alpha, window=window or Window(), blocks=blocks)


def positive_of(subject):
    return conditioning(subject.condition(1))


def watched(patcher, subject, way=None, rows=2):
    """(latent, layers) of the first step."""
    layers = family_of(patcher.model).layers(patcher.model)
    watch = StrengthObserver({key: f"{layer.block.group}.{layer.block.index}" for key, layer in layers.items()})
    latent = {"samples": empty_latent(rows, subject.size)}
    out = observed_step(way or first_step(patcher), positive_of(subject), latent, seed=SEED, observer=watch)
    return out["samples"], watch.layers


def report_of(patcher, subject, **settings):
    return inspect(patcher, positive_of(subject), {"samples": empty_latent()}, seed=SEED, **settings)[1]


@pytest.mark.both_hosts
@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl", "refiner", "ssd1b"])
def test_it_changes_nothing_and_measures_the_formulas_values(kind):
    """For UNets; transformers are tested in the contract of the families."""
    subject = case(kind)
    steered = steer(subject, steer(subject), negative=4, alpha=0.2)
    way, latent = first_step(steered), {"samples": empty_latent(2, subject.size)}
    got, layers = watched(steered, subject)
    assert torch.equal(got, sample_plan(way, positive_of(subject), latent, seed=SEED)["samples"])

    noise = torch.randn(2, 4, *subject.size, generator=torch.Generator().manual_seed(SEED))
    subtractions = [Subtraction(subject.condition(n)["context"], alpha) for n, alpha in ((3, ALPHA), (4, 0.2))]
    subject.reference.x0(noise, 999, subject.condition(1), subtractions)
    assert len(layers) == len(subject.reference.seen)
    for layer, (z_pos, responses, z) in zip(layers, subject.reference.seen, strict=True):
        assert layer.change == pytest.approx(float((z - z_pos).norm() / z_pos.norm()), rel=1e-4)
        assert layer.left == pytest.approx(float((z * z_pos).sum() / z_pos.square().sum()), abs=1e-4)
        for number, z_neg in enumerate(responses):
            negative, norms = layer.negatives[number], z_pos.norm() * z_neg.norm()
            assert negative.ratio == pytest.approx(float(z_neg.norm() / z_pos.norm()), rel=1e-4)
            assert negative.cosine == pytest.approx(float((z_pos * z_neg).sum() / norms), abs=1e-4)


def test_nothing_is_left_behind(subject):
    steered = steer(subject)
    before = one_step(steered, positive_of(subject), {"samples": empty_latent()}, seed=SEED, timesteps="999")["samples"]
    report = report_of(steered, subject)
    assert report_of(steered, subject) == report
    after = one_step(steered, positive_of(subject), {"samples": empty_latent()}, seed=SEED, timesteps="999")["samples"]
    assert torch.equal(before, after)
    assert "snoopi_observer" not in steered.model_options["transformer_options"]


def test_it_measures_the_step_from_pure_noise(subject):
    steered, positive = steer(subject), positive_of(subject)
    expected = inspect(steered, positive, {"samples": empty_latent()}, seed=SEED)[1]
    picture = torch.randn(empty_latent().shape, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, *picture.shape[-2:])
    latent = {"samples": picture, "noise_mask": mask}
    assert inspect(steered, positive, latent, seed=SEED)[1] == expected
    assert latent["noise_mask"] is mask


def test_threads_of_several_gpus_can_be_observed_at_once():
    threads, times = 4, 200
    watch, z_pos, z_neg = StrengthObserver({0: "middle.0"}), torch.ones(8), torch.full((8,), 0.5)

    def look(_):
        for _ in range(times):
            watch.on_response(0, 0, z_pos, z_neg)
            watch.on_steered(0, z_pos, z_pos - z_neg)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(look, range(threads)))
    (layer,) = watch.layers
    assert float(layer.negatives[0].pos) == float(layer.difference.pos) == threads * times * 8


def test_a_presets_first_step_is_measured(subject):
    steered = steer(subject)
    way = first_step(steered, "SD-Turbo, 4 steps")
    assert way.sigmas.tolist() == [sigma_at(subject.patcher.get_model_object("model_sampling"), 999), 0.0]
    later = first_step(steered, "SiD-LSG")
    assert later.sigmas.tolist() == [sigma_at(subject.patcher.get_model_object("model_sampling"), 625), 0.0]
    early, late = ([layer.change for layer in watched(steered, subject, each)[1]] for each in (way, later))
    assert early != late


def test_a_compiled_model_is_measured(subject):
    plain = report_of(steer(subject), subject)
    compiled = subject.patcher.clone()
    set_torch_compile_wrapper(compiled, keys=["diffusion_model"], backend="eager")
    assert report_of(steer(subject, compiled), subject) == plain


class TestReport:
    def test_where_it_acts(self, subject):
        verdict, first, *_ = report_of(steer(subject), subject).splitlines()
        assert verdict == "OK"
        family = "Stable Diffusion UNets (SD1.x, SD2.x, SDXL)"
        assert first == f"NASA Apply acts in 7 of 7 cross-attentions of {family}, with alpha 0.5."
        partly = report_of(steer(subject, blocks="middle, output"), subject).splitlines()[1]
        assert (
            partly == f"NASA Apply acts in 5 of 7 cross-attentions of {family} (middle.0, output.2-5), with alpha 0.5."
        )

    @pytest.mark.parametrize("alpha", [None, 0.0])
    def test_nothing_is_steered(self, subject, alpha):
        patcher = subject.patcher if alpha is None else steer(subject, alpha=alpha)
        chart, report = inspect(patcher, positive_of(subject), {"samples": empty_latent()}, seed=SEED)
        assert report.startswith("No effect\nNothing is steered")
        assert chart.shape[0] == 1 and float(chart.min()) < 0.3  # the sentence is on the page

    @pytest.mark.parametrize(
        "settings", [{"window": Window(start_percent=0.5)}, {"start_percent": 0.5, "end_percent": 1.0}]
    )
    def test_the_step_is_outside_of_the_window(self, subject, settings):
        assert report_of(steer(subject, **settings), subject).startswith(
            "No effect\nNASA Apply does not act in this step"
        )

    def test_another_patch_removes_layers(self, subject):
        """Not by the host's hooks, which NASA chains, but by a wrapper, which can change a call's options freely."""

        def taking(executor, *args, **kwargs):
            *others, options = args
            replace = options["patches_replace"]
            kept = {key: value for key, value in replace["attn2"].items() if key[0] != "middle"}
            return executor(*others, {**options, "patches_replace": {**replace, "attn2": kept}}, **kwargs)

        steered = steer(subject)
        steered.add_wrapper(WrappersMP.DIFFUSION_MODEL, taking)
        assert "NASA Apply acts in 6 of the 7 chosen cross-attentions" in report_of(steered, subject)

    def test_the_prompt_itself(self, subject):
        report = report_of(steer(subject, negative=1, alpha=1.0), subject)
        assert "The negative is uninformative: it means the same as the prompt (mean cosine 1.00)" in report
        assert "too strong" not in report and " 0% of the prompt's own response is left" in report
        assert "-0%" not in report

    def test_a_negative_of_zeros(self, subject):
        zeros = [(torch.zeros_like(each), settings) for each, settings in conditioning(subject.condition(3))]

        def steered(negative, **settings):
            return apply_nasa(subject.patcher, negative, alpha=ALPHA, window=Window(), blocks="all", **settings)

        assert "Nothing is steered" in (alone := report_of(steered(zeros), subject)) and "zeros" in alone
        beside = report_of(steered(zeros + conditioning(subject.condition(3))), subject)
        assert "Negative 1 has no response in any layer: it is all zeros (ConditioningZeroOut)" in beside
        assert "Negative 2 is informative" in beside and "nan" not in beside

    def test_a_mask_that_is_black_in_this_picture(self, subject):
        masks = torch.stack([torch.zeros(SIDE, SIDE), torch.ones(SIDE, SIDE)])
        negative = conditioning(subject.condition(3))
        steered = apply_nasa(subject.patcher, negative, alpha=ALPHA, window=Window(), blocks="all", mask=masks)
        report = report_of(steered, subject)
        assert "No layer changes: the mask of NASA Apply is black in this picture" in report and "nan" not in report

    def test_a_prompt_of_zeros(self, subject):
        zeros = [(torch.zeros_like(each), settings) for each, settings in positive_of(subject)]
        chart, report = inspect(steer(subject), zeros, {"samples": empty_latent()}, seed=SEED)
        assert "The prompt has no response in any layer" in report and "nan" not in report
        assert chart.isfinite().all()

    def test_too_strong_or_not(self, subject):
        verdict = report_of(steer(subject, alpha=3.0), subject).splitlines()[0]
        lower = float(re.fullmatch(r"Too strong: lower alpha to about (\S+)", verdict)[1])
        assert 0.2 < lower < 2.0
        assert report_of(steer(subject, alpha=0.8 * lower), subject).startswith("OK")
        fine = report_of(steer(subject), subject)
        assert fine.startswith("OK") and "Strength: the layers change by" in fine

    @pytest.mark.parametrize(("name", "alpha", "first"), [
        ("orthogonal", 3.5, "Too strong: lower alpha to about "),
        ("NAG", 12.0, "Too strong: lower alpha to about 10, the highest published for NAG"),
        ("VSF", 2.0, "No verdict: no limits are known for VSF"),
    ])  # fmt: skip
    def test_other_methods(self, subject, name, alpha, first):
        negative, method = conditioning(subject.condition(3)), make_method(name)
        steered = apply_nasa(subject.patcher, negative, alpha=alpha, window=Window(), blocks="all", method=method)
        verdict, where, *_ = report_of(steered, subject).splitlines()
        assert verdict.startswith(first) and f"with alpha {alpha:g}, method {name}" in where

    @pytest.mark.parametrize("name", ["NAG", "VSF"])
    def test_zeros_that_act_are_not_said_to_do_nothing(self, subject, name):
        zeros = [(torch.zeros_like(each), settings) for each, settings in conditioning(subject.condition(3))]
        steered = apply_nasa(subject.patcher, zeros, alpha=2.0, window=Window(), blocks="all", method=make_method(name))
        report = report_of(steered, subject)
        assert report.startswith("Other negative needed: this one is all zeros, so it names nothing")
        assert f"It names nothing, but {name} changes the picture all the same." in report
        assert "Strength: the layers change by" in report and "mask" not in report

    def test_several_negatives_are_distinguished(self, subject):
        report = report_of(steer(subject, steer(subject), negative=1), subject)
        assert "Negative 1 is informative" in report and "Negative 2 is uninformative" in report
        assert "middle.0 (2)" in report

    def test_a_negative_keeps_its_number_when_one_before_it_does_not_act(self, subject):
        late = steer(subject, negative=1, window=Window(start_percent=0.5))
        report = report_of(steer(subject, steer(subject, late), negative=1), subject)
        assert "Negative 2 is informative" in report and "Negative 3 is uninformative" in report
        assert "Negative 1" not in report and "1 of 3 NASA Apply nodes do not act in this step." in report
        assert "Negative 2 is informative" in report_of(steer(subject, late), subject)

    def test_combined_prompts_are_distinguished_too(self, subject):
        combined = [prompt for seed in (3, 1) for prompt in conditioning(subject.condition(seed))]
        steered = apply_nasa(steer(subject), combined, alpha=0.2, window=Window(), blocks="all")
        report = report_of(steered, subject)
        assert all(f"Negative {n} is informative" in report for n in (1, 2)) and "Negative 3 is unin" in report

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_model_that_is_broken(self, subject, value):
        """Its attention gives NaN, as with a damaged file or an overflow in half precision."""

        def breaking(q, *args):
            return torch.full_like(q, value)

        steered = steer(subject)
        steered.set_model_attn2_replace(breaking, "middle", 0)
        chart, report = inspect(steered, positive_of(subject), {"samples": empty_latent()}, seed=SEED)
        assert "The model gives NaN or infinity in" in report and "first in middle.0" in report
        assert "informative" not in report and "Strength" not in report
        assert chart.isfinite().all()

    def test_the_shares_are_of_one_whole(self, subject):
        lines = report_of(steer(subject), subject).split("\n\n")[1].splitlines()
        assert lines[0].split() == ["layer", "|Z-|/|Z+|", "cosine", "change", "share", "left"]
        assert sum(float(line.split()[4].rstrip("%")) for line in lines[1:]) == pytest.approx(100, abs=4)


@pytest.mark.both_hosts
class TestTheNode:
    @pytest.fixture(scope="class")
    def student(self):
        return HostStudent()

    def test_it_shows_its_chart(self, student):
        with torch.inference_mode():
            steered = pack_node("nasa_apply", "NASAApply").execute(student.model, student.encode("square"), 1.0)
            latent = run_node("EmptyLatentImage", width=64, height=64, batch_size=2)
            output = pack_node("nasa_inspect", "NASAInspect").execute(
                steered.result[0], student.encode("a blue shape"), latent, 2
            )
        chart, report = output.result
        assert "NASA Apply acts in 7 of 7" in report and "is informative" in report
        assert len(output.ui.as_dict()["images"]) == 1
        assert chart.ndim == 4 and chart.shape[0] == 1 and chart.shape[3] == 3

    def test_a_preset_for_another_model(self, student):
        with pytest.raises(ValueError, match="is for SDXL models"):
            steered = pack_node("nasa_apply", "NASAApply").execute(student.model, student.encode("square"), 1.0)
            latent = {"samples": torch.zeros(1, 4, SIDE, SIDE)}
            pack_node("nasa_inspect", "NASAInspect").execute(
                steered.result[0], student.encode("a blue shape"), latent, 2, "SDXL-DMD2, 1 step"
            )
