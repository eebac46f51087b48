"""Presets and recipes in use: with masks, batches, previews, other models, other nodes and files."""

from __future__ import annotations

import comfy.utils
import latent_preview
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from figures import measured
from pixart_pair import SIDE as PIXART_SIDE
from pixart_pair import pixart_pair
from reference import Subtraction, relative_error
from unets import SIDE, case, conditioning, empty_latent, metadata_of, noise, random_unet

from snoopi_core.formats.architecture import unet_arguments
from snoopi_core.formats.checkpoint import OneStepRecipe, Schedule
from snoopi_core.formats.layouts import to_single_file, unet_rename
from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.loading.attachment import set_metadata
from snoopi_core.host.loading.build import build_model
from snoopi_core.host.loading.model_sampling import model_sampling
from snoopi_core.host.nasa.apply import apply_nasa
from snoopi_core.host.one_step import one_step

pytestmark = pytest.mark.host

BAR = 1e-5
ROUNDING = 1e-5  # between batches of different sizes
FOUR = "999, 749, 499, 249"
# A preset of each convention, "auto" without one, and timesteps that make it take one step or several.
CONVENTIONS = (
    ("auto", "999"),
    ("auto", "399"),
    ("auto", FOUR),
    ("SD-Turbo, 4 steps", "auto"),
    ("LCM-LoRA, 4 steps", "auto"),
    ("Hyper-SD LoRA, 1 step", "800, 400"),
    ("InstaFlow-0.9B", "1000, 500"),
    ("SiD-LSG", "auto"),
)
every_convention = pytest.mark.parametrize(("preset", "timesteps"), CONVENTIONS)
SD15 = ("sd15", "epsilon")


def sample(patcher=None, samples=None, *, preset="auto", timesteps="auto", seed=7, **latent):
    subject = case(*SD15)
    latent = {"samples": empty_latent() if samples is None else samples, **latent}
    positive = conditioning(subject.condition(1))
    out = one_step(patcher or subject.patcher, positive, latent, seed=seed, timesteps=timesteps, preset=preset)
    return out["samples"]


def picture(seed=3, rows=1):
    return torch.randn(rows, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def from_file(**changes):
    """The model of `case("sd15")` as from our own file."""
    unet = random_unet("sd15")
    metadata = metadata_of(unet).model_copy(update=changes)
    return build_model(metadata, to_single_file(unet.state_dict(), unet_rename(unet.config)))


class TestEveryConvention:
    @every_convention
    def test_the_same_seed_gives_the_same_bits(self, preset, timesteps):
        first, again, other = (sample(preset=preset, timesteps=timesteps, seed=seed) for seed in (7, 7, 8))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @every_convention
    def test_a_row_depends_on_its_batch_index(self, preset, timesteps):
        """`batch_index` comes from Latent From Batch: one picture of a batch, made again alone."""
        whole = sample(None, empty_latent(3), preset=preset, timesteps=timesteps, batch_index=[0, 1, 2])
        alone = sample(None, empty_latent(1), preset=preset, timesteps=timesteps, batch_index=[2])
        assert relative_error(alone, whole[2:3]) < ROUNDING
        assert relative_error(alone, whole[1:2]) > 0.1

    @pytest.mark.both_hosts
    @every_convention
    def test_the_masks_zero_keeps_and_its_one_draws(self, preset, timesteps):
        mask = torch.zeros(1, 8 * SIDE, 8 * SIDE)
        mask[..., : 4 * SIDE] = 1.0
        kept = picture()
        half = sample(None, kept, preset=preset, timesteps=timesteps, noise_mask=mask)
        free = sample(None, kept, preset=preset, timesteps=timesteps)
        assert torch.equal(sample(preset=preset, timesteps=timesteps), free), "without a mask, the latent is ignored"
        right, left = slice(SIDE // 2, None), slice(None, SIDE // 2)
        assert torch.equal(half[..., right], kept[..., right])
        assert relative_error(half[..., left], kept[..., left]) > 0.1
        assert not torch.equal(half[..., left], free[..., left]), "the network should get the kept part"

    @every_convention
    def test_masks_of_one_and_zero(self, preset, timesteps):
        kept, size = picture(), (1, 8 * SIDE, 8 * SIDE)
        free = sample(None, kept, preset=preset, timesteps=timesteps)
        assert torch.equal(sample(None, kept, preset=preset, timesteps=timesteps, noise_mask=torch.ones(size)), free)
        assert torch.equal(sample(None, kept, preset=preset, timesteps=timesteps, noise_mask=torch.zeros(size)), kept)

    @every_convention
    def test_progress_and_a_preview_for_each_step(self, preset, timesteps):
        patcher, seen = from_file(latent_rgb_factors=((0.3, 0.2, 0.1),) * 4), []
        comfy.utils.set_progress_bar_global_hook(
            lambda value, total, preview, **_: seen.append((value, total, preview))
        )
        latent_preview.set_preview_method("latent2rgb")
        try:
            sample(patcher, preset=preset, timesteps=timesteps)
        finally:
            latent_preview.set_preview_method("none")
            comfy.utils.set_progress_bar_global_hook(None)
        count = len(seen) if timesteps == "auto" else timesteps.count(",") + 1
        assert count >= 1 and [(value, total) for value, total, _ in seen] == [(i + 1, count) for i in range(count)]
        assert all(preview[1].size == (SIDE, SIDE) for *_, preview in seen)

    def test_they_differ_by_more_than_the_bar(self):
        """Otherwise the measurements of test_one_step_presets.py would not show errors in noise and steps."""
        unit, scheduled = (sample(preset=preset) for preset in ("PG-SB SD1.5", "SD-Turbo, 1 step"))
        clean, left_noisy = (
            sample(preset=preset, timesteps="800") for preset in ("DMD2 SD1.5", "Hyper-SD LoRA, 1 step")
        )
        euler, consistency = (
            sample(preset=preset, timesteps="999, 500") for preset in ("SD-Turbo, 4 steps", "SiD-LSG")
        )
        for one, other in ((unit, scheduled), (clean, left_noisy), (euler, consistency)):
            assert relative_error(one, other) > 100 * BAR


class TestOtherOutputs:
    @pytest.mark.parametrize("own", ["v_prediction", "sample"])
    def test_a_preset_overrides_the_hosts_prediction_type(self, own):
        patcher = from_file(prediction_type=own)
        assert torch.equal(sample(patcher, preset="DMD2 SD1.5"), sample(timesteps="999"))

    @pytest.mark.parametrize("own", ["epsilon", "v_prediction"])
    @pytest.mark.parametrize(("preset", "timesteps"), [("PG-SB, 2 steps", "999, 499"), ("PG-SB, 4 steps", FOUR)])
    def test_our_own_students_of_several_steps_keep_it(self, own, preset, timesteps):
        """A LoRA behind ComfyUI's own Load LoRA predicts what its base does; so the preset is what one would type."""
        patcher = from_file(prediction_type=own)
        assert torch.equal(sample(patcher, preset=preset), sample(patcher, timesteps=timesteps))

    def test_timesteps_replace_only_those_of_the_preset(self):
        got = sample(preset="InstaFlow-0.9B", timesteps="500")
        subject = case(*SD15)
        z = noise().double()
        # Half way, half of the noise is there.
        expected = 0.5 * z + 0.5 * subject.reference.output(0.5 * z, 500, subject.condition(1))
        assert relative_error(got, expected) <= BAR

    def test_nasa_steers_through_a_preset(self):
        subject = case(*SD15)
        unwanted = subject.condition(3)
        steered = apply_nasa(subject.patcher, conditioning(unwanted), alpha=0.19, window=Window(), blocks="all")
        z = noise().double()
        steering = [Subtraction(unwanted["context"], 0.19)]
        expected = z + subject.reference.output(z, 1000, subject.condition(1), steering)
        measured(
            "presets", "InstaFlow-0.9B", "with NASA Apply",
            relative_error(sample(steered, preset="InstaFlow-0.9B"), expected), BAR,
        )  # fmt: skip
        plain = z + subject.reference.output(z, 1000, subject.condition(1))
        assert relative_error(plain, expected) > 1e-2


class TestNothingIsLeftBehind:
    def test_the_model_is_unchanged(self):
        patcher = case(*SD15).patcher
        own, before = patcher.model.model_sampling, sample()
        for preset in ("InstaFlow-0.9B", "SwiftBrush"):
            sample(preset=preset)
            assert patcher.model.model_sampling is own
            assert patcher.get_model_object("model_sampling") is own
        assert torch.equal(sample(), before)

    def test_after_an_error_too(self):
        patcher, own = case(*SD15).patcher, case(*SD15).patcher.model.model_sampling

        def fail(executor, *_, **__):
            raise RuntimeError("interrupted")

        broken = patcher.clone()
        broken.set_model_unet_function_wrapper(fail)
        before = sample()
        with pytest.raises(RuntimeError, match="interrupted"):
            sample(broken, preset="InstaFlow-0.9B")
        assert patcher.model.model_sampling is own
        assert torch.equal(sample(), before)


class TestOtherModels:
    def test_a_preset_for_another_kind_of_model(self):
        with pytest.raises(
            ValueError, match=r"'SDXL-DMD2, 1 step' is for SDXL models, this model is SD1/SD2; .*SD-Turbo"
        ):
            sample(preset="SDXL-DMD2, 1 step")
        pair = pixart_pair()
        latent = {"samples": torch.zeros(1, 4, PIXART_SIDE, PIXART_SIDE)}
        with pytest.raises(ValueError, match=r"'InstaFlow-0.9B' is for SD1/SD2 models, this model is PixArt; .*YOSO"):
            one_step(
                pair.patcher, conditioning(pair.condition(1)), latent, seed=1, timesteps="auto", preset="InstaFlow-0.9B"
            )

    def test_a_kind_of_model_without_presets(self):
        with pytest.raises(
            ValueError, match=r"this model is SDXLRefiner; for this model there is none, only for SD1/SD2, "
        ):
            sample(case("refiner").patcher, preset="SD-Turbo, 1 step")

    def test_the_hosts_other_nodes_for_the_output(self):
        """ModelSamplingDiscrete only changes the kind of output, so a preset can take its place."""
        patcher = ModelSamplingDiscrete().patch(case(*SD15).patcher, "v_prediction", zsnr=False)[0]
        assert torch.equal(sample(patcher, preset="DMD2 SD1.5"), sample(timesteps="999"))

    @pytest.mark.parametrize("preset", ["LCM-LoRA, 4 steps", "PG-SB, 2 steps"])
    def test_another_schedule(self, preset):
        patcher = ModelSamplingDiscrete().patch(case(*SD15).patcher, "lcm", zsnr=False)[0]
        with pytest.raises(ValueError, match=rf"'{preset}' cannot change this model's schedule .*remove that node"):
            sample(patcher, preset=preset)

    def test_a_name_that_is_not_in_the_table(self):
        with pytest.raises(ValueError, match=r"preset 'DMD3' is not known; available: auto, PG-SB SD1.5"):
            sample(preset="DMD3")

    def test_why_full_consistency_models_have_no_preset(self):
        """Their UNet embeds the guidance scale, which the host does not support; our loader reports it."""
        config = {**random_unet("sd15").config, "time_cond_proj_dim": 256}
        assert "cond_proj" not in " ".join(case(*SD15).patcher.model.diffusion_model.state_dict())
        with pytest.raises(ValueError, match="ComfyUI has no UNet with these settings: time_cond_proj_dim is 256"):
            unet_arguments(config)


class TestRecipes:
    def test_noise_and_steps_come_from_the_file(self):
        alpha, sigma = case(*SD15).reference.alpha_sigma(999)
        recipe = {"timesteps": (999, 749, 499, 249), "alpha_T": alpha, "sigma_T": sigma}
        euler = from_file(recipe=OneStepRecipe(**recipe, noise="scheduled", steps="euler"))
        assert relative_error(sample(euler), sample(preset="SD-Turbo, 4 steps")) <= 1e-6
        plain = from_file(recipe=OneStepRecipe(**recipe))
        assert relative_error(sample(plain), sample(timesteps="999, 749, 499, 249")) <= 1e-6

    def test_a_file_of_a_rectified_flow(self):
        recipe = OneStepRecipe(timesteps=(1000,), alpha_T=0.0, sigma_T=1.0, steps="euler")
        flow = from_file(prediction_type="flow", recipe=recipe)
        assert torch.equal(sample(flow), sample(preset="InstaFlow-0.9B"))
        assert torch.equal(sample(flow, preset="InstaFlow-0.9B"), sample(preset="InstaFlow-0.9B"))
        with pytest.raises(ValueError, match=r"1001 is above the model's last timestep; .* from 1000 down to 0"):
            sample(flow, timesteps="1001")
        with pytest.raises(ValueError, match=r"'DMD2 SD1.5' cannot change this model's schedule"):
            sample(flow, preset="DMD2 SD1.5")

    def test_a_preset_overrides_the_recipe(self):
        alpha, sigma = case(*SD15).reference.alpha_sigma(399)
        patcher = from_file(recipe=OneStepRecipe(timesteps=(399,), alpha_T=alpha, sigma_T=sigma))
        assert relative_error(sample(patcher, preset="SD-Turbo, 1 step"), sample(preset="SD-Turbo, 1 step")) <= 1e-6

    def test_the_noise_level_of_a_pixart_student(self):
        """alpha_T^2 = 0.0047 at t = 999, where PixArt's own schedule has 4e-5: sigma 14.55 in place of 157."""
        pair, alpha, sigma = pixart_pair(), 0.0047**0.5, (1 - 0.0047) ** 0.5
        metadata = metadata_of(random_unet("sd15")).model_copy(
            update={
                "schedule": Schedule(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
                "recipe": OneStepRecipe(timesteps=(999,), alpha_T=alpha, sigma_T=sigma),
            }
        )
        own = pair.patcher.get_model_object("model_sampling")
        sampling = model_sampling(metadata, pair.patcher.model.model_config)
        assert float(own.sigma_max) == pytest.approx(157.4, abs=0.1)
        assert float(sampling.sigma_max) == pytest.approx(14.552, abs=1e-3)
        assert torch.equal(sampling.sigmas[:-1], own.sigmas[:-1])
        patcher = pair.patcher.clone()
        patcher.add_object_patch("model_sampling", sampling)
        set_metadata(patcher, metadata)

        positive, latent = pair.condition(1), {"samples": torch.zeros(2, 4, PIXART_SIDE, PIXART_SIDE)}
        out = one_step(patcher, conditioning(positive), latent, seed=7, timesteps="auto")["samples"]
        z = torch.randn(2, 4, PIXART_SIDE, PIXART_SIDE, generator=torch.Generator().manual_seed(7)).double()
        expected = (z - sigma * pair.output(z, 999, positive)) / alpha
        got = pair.patcher.model.process_latent_in(out)
        measured("presets", "PixArt file, alpha_T^2 = 0.0047", "relative error", relative_error(got, expected), BAR)

    @pytest.mark.parametrize(
        ("recipe", "message"),
        [
            (
                {"timesteps": (1000,), "alpha_T": 0.6, "sigma_T": 0.8},
                "starts at timestep 1000, expected at most 999",
            ),
            ({"timesteps": (999,), "alpha_T": 0.0, "sigma_T": 1.0}, "alpha_T is 0, which only flow models have"),
        ],
    )
    def test_recipes_that_the_schedule_cannot_follow(self, recipe, message):
        with pytest.raises(ValueError, match=message):
            from_file(recipe=OneStepRecipe(**recipe))

    def test_steps_that_a_flow_does_not_have(self):
        recipe = OneStepRecipe(timesteps=(1000,), alpha_T=0.0, sigma_T=1.0, steps="tcd")
        with pytest.raises(ValueError, match=r"this is a flow model.*expected steps euler or consistency"):
            sample(from_file(prediction_type="flow", recipe=recipe))
