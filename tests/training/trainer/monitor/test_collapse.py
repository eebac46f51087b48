"""Warnings: on runs that go wrong, once for each episode, and not on runs that go well."""

import math

import pytest
import torch
from accelerate import Accelerator

from training.config import load_recipe
from training.distill.noise_levels import NoiseLevels
from training.models.loading import load_backbone
from training.prompts import open_prompts
from training.trainer.monitor.collapse import PAST, RULES, WINDOW, CollapseDetector
from training.trainer.monitor.latent_stats import compare
from training.trainer.monitor.samples import Sampler

HEALTHY = {"sample_diversity": 0.9, "sample_diversity_prompts": 1.0, "sample_std": 1.0}


def warnings_of(watch, iterations, **figures):
    """Warnings of a run; a metric is a number or a function of the iteration."""
    found = []
    for iteration in iterations:
        values = {name: value(iteration) if callable(value) else value for name, value in figures.items()}
        found += watch.update(iteration, values)
    return found


@pytest.mark.parametrize(
    ("figure", "value", "says"),
    [
        ("sample_diversity", 0.15, "differ between seeds 0.15 times as much as the teacher's"),
        ("sample_diversity_prompts", 0.3, "different prompts differ 0.30 times"),
        ("sample_std", 1.7, "burnt colours"),
        ("sample_std", 0.4, "grey images"),
    ],
)
def test_each_fault_of_samples_has_its_warning(figure, value, says):
    watch = CollapseDetector(10_000)
    assert warnings_of(watch, range(500, 3000, 500), **HEALTHY) == []
    (warning,) = warnings_of(watch, range(3000, 5000, 500), **HEALTHY | {figure: value})
    assert warning.startswith("iteration 3000: ") and says in warning and "To try: " in warning
    assert list(watch.active.values()) == [warning]


def test_each_episode_is_warned_about_once():
    watch = CollapseDetector(10_000)
    low, calmer, healthy = ({"sample_diversity": value} for value in (0.3, 0.45, 0.7))
    assert len(warnings_of(watch, [2000, 2500, 3000], **low)) == 1
    assert warnings_of(watch, [3500], **calmer) == [] and watch.active, "between the two limits the episode continues"
    assert warnings_of(watch, [4000], **low) == []
    assert warnings_of(watch, [4500], **healthy) == [] and not watch.active
    assert len(warnings_of(watch, [5000], **low)) == 1


def test_a_student_has_time_to_become_pictures():
    """It starts as a blur; a warning follows only if that lasts, with the time of its start."""
    watch = CollapseDetector(10_000)
    assert warnings_of(watch, [500, 900], sample_diversity=0.3) == []
    (warning,) = warnings_of(watch, [1000, 1500], sample_diversity=0.3)
    assert warning.startswith("iteration 1000: ") and "since iteration 500" in warning
    assert warnings_of(CollapseDetector(10_000), [500, 900], sample_diversity=0.3) == []
    assert warnings_of(CollapseDetector(100), [50, 99], sample_diversity=0.3) == [], (
        "short runs are not judged by a tenth"
    )


@pytest.mark.parametrize(
    ("figure", "factor", "says"),
    [
        ("gap", 8, "the LoRA teacher no longer follows the student"),
        ("lora", 4, "change faster than the LoRA teacher learns"),
        ("student_grad", 15, "student's gradient norm is 1"),
        ("lora_grad", 15, "LoRA teacher's gradient norm is 1"),
    ],
)
def test_explosions_are_warned_about_and_noise_is_not(figure, factor, says):
    def noisy(iteration):  # kappa and t are random in each iteration: values vary within a factor of 3
        return 0.05 * 3 ** math.sin(17.0 * iteration)

    watch = CollapseDetector(60_000)
    assert warnings_of(watch, range(10, 3000, 10), **{figure: noisy}) == []
    assert warnings_of(watch, [3000], **{figure: 1e3}) == [], "a single value is not an episode"
    (warning,) = warnings_of(watch, range(3010, 3600, 10), **{figure: lambda iteration: factor * noisy(iteration)})
    assert says in warning


def test_a_gap_that_rises_from_zero_is_not_an_explosion():
    """At first the LoRA teacher equals the frozen one."""
    watch = CollapseDetector(60_000)
    rising = {"gap": lambda iteration: 1e-3 + 0.06 * (1 - math.exp(-iteration / 300))}
    assert warnings_of(watch, range(10, 5000, 10), **rising) == []


def test_a_constant_lora_teacher_is_warned_about():
    watch = CollapseDetector(60_000)
    (warning,) = warnings_of(watch, range(10, 2000, 10), gap=1e-6)
    assert "LoRA teacher does not learn" in warning
    assert warning.startswith(f"iteration {10 * (WINDOW + PAST)}: ")


def test_a_resumed_run_does_not_repeat_warnings():
    """The log is read again, so an episode that was already warned about continues without a new warning."""
    lines = [(n, {"sample_diversity": 0.2} if n % 500 == 0 else {"gap": 0.05}) for n in range(10, 5000, 10)]
    watch, resumed = CollapseDetector(10_000), CollapseDetector(10_000)
    for n, line in lines:
        watch.update(n, line)
    for n, line in lines[:250]:
        resumed.update(n, line)
    assert [text for n, line in lines[250:] for text in resumed.update(n, line)] == []
    assert resumed.active == watch.active and len(watch.active) == 1


def test_non_finite_metrics_are_ignored():
    """The metrics of a skipped iteration; in the log they are null."""
    watch = CollapseDetector(60_000)
    for n in range(1000, 3000, 10):
        assert watch.update(n, {"gap": (0.05, float("nan"), None, float("inf"))[n // 10 % 4]}) == []


def test_every_limit_is_beyond_its_calm_value():
    for rule in RULES:
        assert rule.limit != rule.calm and rule.crossed(rule.limit, rule.calm)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    """The shapes' teacher's samples, and a way to draw others with other noise."""
    teacher = load_backbone("models/snoopi-shapes-teacher.safetensors")
    accelerator, folder = Accelerator(cpu=True), tmp_path_factory.mktemp("samples")

    def sampler(seed, fingerprint="teacher"):
        recipe = load_recipe("shapes", [f"seed={seed}", "output.sample_seeds=2"])
        prompts = open_prompts(recipe.prompts, 0).take(8)
        levels = NoiseLevels.from_schedule(teacher.alphas_cumprod(), recipe)
        return Sampler(
            prompts,
            recipe=recipe,
            accelerator=accelerator,
            backbone=teacher,
            teacher_fingerprint=fingerprint,
            levels=levels,
        )

    return sampler, sampler(0).teacher(folder / "teacher.safetensors").x0, folder


def test_a_collapsed_shapes_student_is_warned_about(small_world):
    """It keeps 9 % of the entropy within a prompt (docs/RESULTS.md), while its images look right one by one."""
    sampler, reference, _ = small_world
    student = load_backbone("models/snoopi-shapes-student.safetensors").network
    found = compare(sampler(0).student(student).x0, reference)
    (warning,) = CollapseDetector(700).update(700, found)
    assert "images of one prompt differ between seeds" in warning and found["sample_diversity"] < 0.25
    assert found["sample_diversity_prompts"] > 0.9 and 0.9 < found["sample_std"] < 1.1


def test_the_shapes_teacher_gives_no_warning(small_world):
    """Images of the teacher itself with other noise."""
    sampler, reference, folder = small_world
    found = compare(sampler(1).teacher(folder / "other.safetensors").x0, reference)
    assert CollapseDetector(700).update(700, found) == []
    assert found["sample_distance"] < 0.2
    for strength, says in ((0.5, "grey images"), (1.6, "burnt colours")):
        (warning, *_) = CollapseDetector(700).update(700, compare(strength * reference, reference))[-1:]
        assert says in warning


def test_cached_samples_of_another_teacher_or_prompt_are_not_used(small_world):
    sampler, reference, folder = small_world
    kept = folder / "teacher.safetensors"
    before = kept.stat().st_mtime_ns
    assert torch.equal(sampler(0).teacher(kept).x0, reference) and kept.stat().st_mtime_ns == before
    same = sampler(0)
    assert same._read(kept) is not None
    assert sampler(1)._read(kept) is None
    assert sampler(0, "the same path, other weights")._read(kept) is None
    kept.write_bytes(kept.read_bytes()[:100])
    assert same._read(kept) is None, "samples of a damaged file are drawn again"
