"""NASA Scale Sweep: its pictures equal those of NASA Apply and a sampler, for each alpha."""

from __future__ import annotations

import comfy.model_management
import comfy.samplers
import comfy.utils
import families
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from host_nodes import run_node
from host_world import HostStudent, pack_node
from unets import case, conditioning

pytestmark = pytest.mark.host

ALPHAS = (0.0, 0.3, 1.0)
SEED = 2
PRESET = {"timesteps": "auto", "preset": "SD-Turbo, 4 steps"}


@pytest.fixture(scope="module")
def student():
    return HostStudent()


@pytest.fixture(scope="module")
def prompts(student):
    return student.encode("a blue shape"), student.encode("square")


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


def latent(rows=1):
    return {"samples": torch.zeros(rows, 4, 8, 8)}


def swept(student, prompts, *, model=None, alphas=ALPHAS, rows=1, seed=SEED, **settings):
    """(sheet, images) of the node."""
    node = pack_node("nasa_scale_sweep", "NASAScaleSweep")
    text = ", ".join(map(str, alphas))
    return node.execute(model or student.model, *prompts, latent(rows), student.vae, text, seed, **settings).result


def nasa(model, negative, alpha):
    return pack_node("nasa_apply", "NASAApply").execute(model, negative, alpha).result[0]


def by_hand(student, prompts, alpha, *, model=None, rows=1, **settings):
    """NASA Apply, One-Step Sampler, VAE Decode."""
    positive, negative = prompts
    model = model or student.model
    steered = model if alpha == 0.0 else nasa(model, negative, alpha)
    sampler = pack_node("one_step_sampler", "OneStepSampler")
    settings = {"timesteps": "auto", **settings}
    samples = sampler.execute(steered, positive, latent(rows), SEED, **settings).result[0]
    return run_node("VAEDecode", vae=student.vae, samples=samples)


@pytest.mark.both_hosts
@pytest.mark.parametrize("settings", [{}, PRESET, {"timesteps": "999, 499"}])
@pytest.mark.parametrize("rows", [1, 3])
def test_each_picture_equals_that_of_separate_nodes(student, prompts, rows, settings):
    sheet, images, _ = swept(student, prompts, rows=rows, **settings)
    expected = [by_hand(student, prompts, alpha, rows=rows, **settings) for alpha in ALPHAS]
    assert torch.equal(images, torch.cat(expected))
    assert not torch.equal(expected[0], expected[1]) and not torch.equal(expected[1], expected[2])
    assert sheet.ndim == 4 and sheet.shape[0] == 1


def test_a_negative_of_zeros_is_warned_of_once(student, prompts, caplog):
    zeros = run_node("ConditioningZeroOut", conditioning=prompts[1])
    _, images, spot = swept(student, (prompts[0], zeros))
    assert "No sweet spot: the negative is all zeros" in spot.message
    assert all(torch.equal(images[0], image) for image in images[1:])
    words = "NASA Scale Sweep: NASA does nothing, so its pictures are the same: the negative is all zeros"
    assert caplog.text.count(words) == 1


def test_a_model_that_is_already_steered(student, prompts):
    other = nasa(student.model, student.encode("red"), 0.5)
    images = swept(student, prompts, model=other)[1]
    for alpha, image in zip(ALPHAS, images, strict=True):
        assert torch.equal(image[None], by_hand(student, prompts, alpha, model=other))


def test_all_are_sampled_before_the_first_is_decoded(student, prompts, monkeypatch):
    """Otherwise a GPU with memory for only one of network and VAE would swap them at each alpha."""
    order = []

    def noted(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: order.append(name) or original(*args, **kwargs))

    noted(comfy.samplers.CFGGuider, "sample")
    noted(student.vae, "decode")
    swept(student, prompts)
    assert order == ["sample"] * len(ALPHAS) + ["decode"] * len(ALPHAS)


def test_nothing_is_left_on_the_model(student, prompts):
    before = by_hand(student, prompts, 0.0)
    first = swept(student, prompts, **PRESET)[1]
    assert not student.model.wrappers
    assert torch.equal(by_hand(student, prompts, 0.0), before)
    assert torch.equal(swept(student, prompts, **PRESET)[1], first)


def test_the_noise_is_the_same_for_all(student, prompts):
    images = swept(student, prompts, alphas=(0.3, 0.3))[1]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(swept(student, prompts, alphas=(0.3,), seed=3)[1], images[:1])


def host_sampling(model, steps=3):
    return {
        "sampler": run_node("nodes_custom_sampler.KSamplerSelect", sampler_name="euler"),
        "sigmas": run_node(
            "nodes_custom_sampler.BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0
        ),
    }


@pytest.mark.both_hosts
def test_with_the_hosts_sampler_it_equals_custom_sampling(student, prompts):
    positive, negative = prompts
    sampling = host_sampling(student.model)
    images = swept(student, prompts, rows=2, **sampling)[1]
    for number, alpha in enumerate(ALPHAS):
        model = student.model if alpha == 0.0 else nasa(student.model, negative, alpha)
        guider = run_node("nodes_custom_sampler.BasicGuider", model=model, conditioning=positive)
        noise = run_node("nodes_custom_sampler.RandomNoise", noise_seed=SEED)
        out, _ = run_node(
            "nodes_custom_sampler.SamplerCustomAdvanced", noise=noise, guider=guider, latent_image=latent(2), **sampling
        )
        assert torch.equal(images[2 * number : 2 * number + 2], student.vae.decode(out["samples"]))


@pytest.mark.parametrize("way", ["preset", "host"])
def test_transformers_are_swept_too(student, way):
    subject = families.case("PixArt-alpha 512")
    positive, negative = (families.conditioning(subject.condition(seed)) for seed in (1, 3))
    settings = {"preset": "PixArt-DMD"} if way == "preset" else host_sampling(subject.patcher)
    node = pack_node("nasa_scale_sweep", "NASAScaleSweep")
    arguments = (subject.patcher, positive, negative, {"samples": subject.latent()}, student.vae)
    images = node.execute(*arguments, "0, 0.5", SEED, **settings).result[1]
    assert torch.equal(images[:1], node.execute(*arguments, "0", SEED, **settings).result[1])
    steered = nasa(subject.patcher, negative, 0.5)
    assert torch.equal(images[1:], node.execute(steered, *arguments[1:], "0", SEED, **settings).result[1])
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("settings", [{"timesteps": "999, 499"}, "host"])
def test_one_progress_bar_for_all_steps_of_all_pictures(student, prompts, settings, monkeypatch):
    seen = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview=None, node_id=None: seen.append((value, total))
    )
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    swept(student, prompts, **(host_sampling(student.model, 2) if settings == "host" else settings))
    steps = [(value, total) for value, total in seen if total == 6]
    assert steps == [(value, 6) for value in range(1, 7)]


def test_it_stops_when_it_is_interrupted(student, prompts, monkeypatch):
    seen = []

    def hook(value, total, preview=None, node_id=None):
        seen.append(value)
        comfy.model_management.interrupt_current_processing(True)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            swept(student, prompts)
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert seen == [1]


class TestWrongInput:
    """Everything is checked before the first picture is sampled."""

    def test_no_vae(self, student, prompts):
        node = pack_node("nasa_scale_sweep", "NASAScaleSweep")
        with pytest.raises(ValueError, match="vae is empty"):
            node.execute(student.model, *prompts, latent(), None, "0", SEED)

    @pytest.mark.parametrize(("given", "missing"), [("sampler", "sigmas"), ("sigmas", "sampler")])
    def test_half_of_custom_sampling(self, student, prompts, given, missing):
        half = {given: host_sampling(student.model)[given]}
        with pytest.raises(ValueError, match=f"{given} is connected but {missing} is not"):
            swept(student, prompts, **half)

    def test_no_step(self, student, prompts):
        sampling = {**host_sampling(student.model), "sigmas": torch.tensor([])}
        with pytest.raises(ValueError, match="sigmas has 0 value"):
            swept(student, prompts, **sampling)

    def test_a_negative_of_another_model(self, student, prompts):
        other = conditioning(case("sd15").condition(3))
        with pytest.raises(ValueError, match="another model's text encoder"):
            swept(student, (prompts[0], other), alphas=(0.0,))

    @pytest.mark.parametrize(
        ("settings", "answer"),
        [
            ({"alphas": "0, 1"}, True),
            ({"alphas": None}, True),
            ({"alphas": "a"}, "'a' is not a number"),
        ],
    )
    def test_alphas_are_checked_before_anything_runs(self, settings, answer):
        got = pack_node("nasa_scale_sweep", "NASAScaleSweep").validate_inputs(**settings)
        assert got is True if answer is True else answer in got

    def test_invalid_timesteps(self, student, prompts, monkeypatch):
        monkeypatch.setattr(comfy.samplers.CFGGuider, "sample", None)
        with pytest.raises(ValueError, match="'ten' is not a whole number"):
            swept(student, prompts, timesteps="ten")


@pytest.mark.both_hosts
def test_methods_side_by_side(student, prompts):
    """One column for each method and strength; each picture is NASA Apply's with that method."""
    node = pack_node("nasa_scale_sweep", "NASAScaleSweep")
    text = "NASA: 0, 0.5; NAG: 2; VSF: 1; orthogonal: 0.5"
    images = node.execute(student.model, *prompts, latent(), student.vae, text, SEED).result[1]
    apply = pack_node("nasa_apply", "NASAApply")
    for image, (method, alpha) in zip(
        images, [("NASA", 0.0), ("NASA", 0.5), ("NAG", 2.0), ("VSF", 1.0), ("orthogonal", 0.5)], strict=True
    ):
        steered = apply.execute(student.model, prompts[1], alpha, method=method).result[0]
        samples = pack_node("one_step_sampler", "OneStepSampler").execute(
            steered, prompts[0], latent(), SEED, timesteps="auto"
        )
        assert torch.equal(image, student.vae.decode(samples.result[0]["samples"])[0])


@pytest.mark.both_hosts
@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("0, 0.5, 1", {}, 1.0),  # the student's own, in its file
        ("0.6, 3", {}, 0.6),
        ("2, 3", {}, "1 is known for this model (from the model's file), and the list has no alpha from 0.5 to it"),
        ("NAG: 2", {}, "for other methods none is known"),
    ],
)
def test_the_sweet_spot_is_known_or_there_is_none(student, prompts, text, settings, expected):
    """What is connected to the third output gets the marked alpha, or does not run and shows the reason."""
    node = pack_node("nasa_scale_sweep", "NASAScaleSweep")
    sheet, _, spot = node.execute(student.model, *prompts, latent(), student.vae, text, SEED, **settings).result
    green = torch.tensor([0x1A, 0x7F, 0x37]) / 255
    marked = bool(((sheet[0] - green).abs() < 1e-3).all(-1).any())
    if isinstance(expected, float):
        assert spot == expected and marked
    else:
        assert isinstance(spot, ExecutionBlocker) and expected in spot.message and not marked


def test_without_a_known_alpha_there_is_no_sweet_spot(student):
    subject = families.case("PixArt-alpha 512")
    positive, negative = (families.conditioning(subject.condition(seed)) for seed in (1, 3))
    node = pack_node("nasa_scale_sweep", "NASAScaleSweep")
    arguments = (subject.patcher, positive, negative, {"samples": subject.latent()}, student.vae, "0.3", SEED)
    assert node.execute(*arguments, preset="PixArt-DMD").result[2] == 0.3  # the paper's is 0.45
    unknown = node.execute(*arguments, **host_sampling(subject.patcher)).result[2]
    assert "no alpha has been measured or published for this model" in unknown.message
