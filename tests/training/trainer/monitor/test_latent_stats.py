"""Statistics of latents against closed forms, and on sets with known results."""

import math

import pytest
import torch

from training.trainer.monitor.latent_stats import (
    channel_distance,
    compare,
    diversity,
    gap_by_timestep,
    latent_distance,
    latent_stats,
    layout,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_channel_distance_of_scaled_and_shifted_latents():
    """x -> s x + c: ((1 - s)^2 tr(cov) + |(s - 1) m + c|^2) / tr(cov)."""
    teacher = noise(6, 4, 3, 8, 8) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)
    pixels = teacher.movedim(2, -1).reshape(-1, 3).double()
    trace = pixels.T.cov(correction=0).trace()
    shift = torch.tensor([0.0, 1.0, -1.0])
    moved = ((-0.4 * pixels.mean(0) + shift) ** 2).sum()
    expected = (0.16 * trace + moved) / trace
    assert channel_distance(0.6 * teacher + shift.view(3, 1, 1), teacher) == pytest.approx(expected.item(), rel=1e-5)


def test_latent_distance_runs_from_the_teachers_own_images_to_a_flat_picture():
    teacher = noise(8, 4, 4, 8, 8) + 2 * noise(8, 1, 4, 8, 8, seed=1)
    assert latent_distance(teacher, teacher) == pytest.approx(0, abs=1e-6)
    flat = teacher.mean((0, 1, 3, 4), keepdim=True).expand_as(teacher)
    assert latent_distance(flat, teacher) == pytest.approx(1, abs=1e-3)
    again = noise(8, 4, 4, 8, 8, seed=2) + 2 * noise(8, 1, 4, 8, 8, seed=1)
    blurred = torch.nn.functional.avg_pool2d(again.flatten(0, 1), 3, stride=1, padding=1).view_as(again)
    near = latent_distance(again, teacher)
    assert near < 0.1
    for worse in (0.5 * again, 2 * again, again + 1, blurred):
        assert latent_distance(worse, teacher) > 3 * near


def test_latent_distance_is_of_both_scales():
    """Noise of the same strength, fine or coarse: pixels are alike, places are not."""
    fine, coarse = noise(8, 4, 4, 16, 16), noise(8, 4, 4, 4, 4).repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert channel_distance(coarse, fine) < 0.01
    expected = (channel_distance(coarse, fine) + channel_distance(layout(coarse), layout(fine))) / 2
    assert latent_distance(coarse, fine) == pytest.approx(math.sqrt(expected)) and expected > 1


def test_diversity_of_known_sets():
    one = noise(1, 4, 8, 8)
    assert diversity(one.expand(5, -1, -1, -1)) == 0
    assert diversity(torch.cat([one, one + 1])) == pytest.approx(math.sqrt(4 * 8 * 8), rel=1e-6)
    images = noise(7, 4, 8, 8)
    pairs = torch.pdist(images.flatten(1).double()).square().mean().sqrt()
    assert diversity(images) == pytest.approx(pairs.item(), rel=1e-6)
    assert diversity(noise(64, 4, 8, 8)) == pytest.approx(math.sqrt(2 * 256), rel=0.02)
    sets = noise(3, 7, 4, 8, 8)
    squares = [diversity(each) ** 2 for each in sets]
    assert diversity(sets) == pytest.approx(math.sqrt(sum(squares) / 3), rel=1e-6)
    with pytest.raises(ValueError, match="1 image"):
        diversity(one)


def test_compare_distinguishes_seeds_from_prompts_and_layout_from_texture():
    """teacher: prompts, and seeds within them, differ. The students lack one of these."""
    of_prompt, of_seed, texture = noise(8, 1, 4, 2, 2), noise(8, 4, 4, 2, 2, seed=1), noise(8, 4, 4, 16, 16, seed=2)
    large = torch.nn.Upsample(scale_factor=8)

    def pictures(prompt, seed, grain=1.0):
        low = (prompt * of_prompt + seed * of_seed).flatten(0, 1)
        return large(low).unflatten(0, (8, 4)) + 0.5 * grain * texture

    teacher = pictures(1, 1)
    own = compare(teacher, teacher)
    assert own == pytest.approx(
        {"sample_distance": 0, "sample_diversity": 1, "sample_diversity_prompts": 1, "sample_std": 1}, abs=1e-6
    )
    collapsed = compare(pictures(1, 0), teacher)
    assert collapsed["sample_diversity"] < 0.15, "noise that follows the seed must not count as diversity"
    assert collapsed["sample_diversity_prompts"] > 0.6
    deaf = compare(pictures(0, 1), teacher)
    assert deaf["sample_diversity"] == pytest.approx(1, abs=0.01) and deaf["sample_diversity_prompts"] < 0.9
    assert compare(2 * teacher, teacher)["sample_std"] == pytest.approx(2)


def test_spread_of_latents():
    x0 = torch.zeros(2, 2, 10, 10)
    x0[:, 1] = noise(2, 10, 10)
    x0[0, 1, 0, 0] = 100.0
    found = latent_stats(x0)
    assert found["x0_std_c0"] == 0 and found["x0_std_c1"] == pytest.approx(x0[:, 1].std(correction=0).item(), rel=1e-6)
    assert found["x0_mean"] == pytest.approx(x0.mean().item(), rel=1e-5)
    assert found["x0_std"] == pytest.approx(x0.std(correction=0).item(), rel=1e-6)
    assert found["x0_far"] == pytest.approx(1 / 400), "one value of 400"
    assert latent_stats(noise(64, 4, 32, 32))["x0_far"] == pytest.approx(
        6.3e-5, rel=0.3
    )  # of a Gaussian beyond 4 sigma


def test_gap_by_timestep_takes_each_row_once():
    t = torch.tensor([20, 259, 260, 739, 740, 980])
    gap = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0, 11.0])
    bounds = (20, 260, 500, 740, 980)
    assert gap_by_timestep(gap, t, bounds) == {"gap_t20": 2, "gap_t260": 5, "gap_t500": 7, "gap_t740": 10}
    assert gap_by_timestep(gap[:1], t[:1], bounds) == {"gap_t20": 1}, "intervals without a row are left out"
    assert gap_by_timestep(gap, t, (500,)) == {}


def test_layout_keeps_small_latents():
    x0 = noise(3, 2, 4, 2, 2)
    assert torch.equal(layout(x0), x0)
    assert layout(noise(3, 2, 4, 64, 64)).shape == (3, 2, 4, 4, 4)
