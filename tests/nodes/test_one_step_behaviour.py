"""One-Step Sampler as a node among the host's: seeds, latents, recipes, sizes, wrong input.

Tests for every preset (repeatable, batches, masks, progress) are in test_one_step_conventions.py.
"""

from __future__ import annotations

import comfy.cli_args
import comfy.latent_formats
import comfy.sample
import comfy.utils
import latent_preview
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingSD3
from reference import relative_error
from unets import SIDE, Case, case, conditioning, empty_latent, metadata_of, noise, random_unet

from snoopi_core.formats.checkpoint import OneStepRecipe, Schedule
from snoopi_core.formats.layouts import to_single_file, unet_rename
from snoopi_core.host.loading.attachment import get_metadata, set_metadata
from snoopi_core.host.loading.build import build_model
from snoopi_core.host.one_step import one_step

pytestmark = pytest.mark.host

ROUNDING = 1e-5  # between batches of different sizes


@pytest.fixture
def subject() -> Case:
    return case("sd15")


def picture(seed=3, rows=1):
    return torch.randn(rows, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def sample(subject, samples=None, *, seed=7, timesteps="999", patcher=None, **latent):
    latent = {"samples": empty_latent() if samples is None else samples, **latent}
    return one_step(
        patcher or subject.patcher, conditioning(subject.condition(1)), latent, seed=seed, timesteps=timesteps
    )


def with_metadata(**changes):
    """The model of `case("sd15")` as from our own file."""
    unet = random_unet("sd15")
    metadata = metadata_of(unet).model_copy(update=changes)
    return build_model(metadata, to_single_file(unet.state_dict(), unet_rename(unet.config)))


class TestSeeds:
    def test_later_steps_use_seeds_that_nobody_types(self, subject, monkeypatch):
        """Otherwise the second step of seed 7 would have the first noise of seed 8."""
        seeds, draw = [], comfy.sample.prepare_noise
        monkeypatch.setattr(
            comfy.sample, "prepare_noise", lambda latent, seed, *rest: seeds.append(seed) or draw(latent, seed, *rest)
        )
        sample(subject, timesteps="999, 749, 499, 249", seed=7)
        assert seeds[0] == 7
        assert len(set(seeds)) == 4 and min(seeds[1:]) > 2**53

    def test_the_largest_seed_works(self, subject):
        assert torch.isfinite(sample(subject, seed=2**64 - 1, timesteps="999, 499")["samples"]).all()

    @pytest.mark.parametrize(("seed", "same"), [(2**64, 0), (2**64 + 7, 7), (-1, 2**64 - 1)])
    def test_seeds_from_other_nodes_wrap_around(self, subject, seed, same):
        """The widget has a maximum, but a connected number has none."""
        assert torch.equal(sample(subject, seed=seed)["samples"], sample(subject, seed=same)["samples"])


class TestLatents:
    def test_other_entries_stay_and_the_input_is_not_changed(self, subject):
        latent = {"samples": empty_latent(), "noise_mask": torch.ones(1, 64, 64), "downscale_ratio_spacial": 8}
        before = dict(latent)
        out = one_step(subject.patcher, conditioning(subject.condition(1)), latent, seed=1, timesteps="999")
        assert latent == before
        assert out.keys() == {"samples", "noise_mask"}

    @pytest.mark.parametrize("halved", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_the_dtype_is_that_of_the_hosts_sampler(self, subject, halved, dtype, monkeypatch):
        """Newer hosts have an option to keep latents in fp16."""
        monkeypatch.setattr(comfy.cli_args.args, "fp16_intermediates", halved, raising=False)
        positive, samples = conditioning(subject.condition(1)), empty_latent().to(dtype)
        theirs = comfy.sample.sample(
            subject.patcher, comfy.sample.prepare_noise(samples, 7), 1, 1.0, "lcm", "simple", positive, positive,
            samples, seed=7, disable_pbar=True,
        )  # fmt: skip
        assert sample(subject, samples)["samples"].dtype == theirs.dtype

    def test_channels_of_an_empty_latent_are_fitted(self, subject):
        assert sample(subject, torch.zeros(1, 16, SIDE, SIDE))["samples"].shape == (1, 4, SIDE, SIDE)


class TestPreviews:
    def test_stable_diffusions_latents_have_the_hosts_colours(self):
        ours = with_metadata(latent_scale=0.18215).model.latent_format
        theirs = comfy.latent_formats.SD15()
        assert ours.latent_rgb_factors == theirs.latent_rgb_factors
        assert ours.taesd_decoder_name == theirs.taesd_decoder_name
        own = with_metadata(latent_scale=0.18215, latent_rgb_factors=((1.0, 0.0, 0.0),) * 4).model.latent_format
        assert own.latent_rgb_factors == [[1.0, 0.0, 0.0]] * 4 and own.taesd_decoder_name is None

    def test_no_preview_without_colours(self):
        latent_preview.set_preview_method("latent2rgb")
        try:
            assert latent_preview.get_previewer(torch.device("cpu"), case("sd15").patcher.model.latent_format) is None
        finally:
            latent_preview.set_preview_method("none")


class TestRecipe:
    def test_a_schedule_of_more_timesteps(self, subject):
        patcher = with_metadata(schedule=Schedule(num_train_timesteps=1500))
        at = [sample(subject, patcher=patcher, timesteps=text)["samples"] for text in ("auto", "1499", "1200")]
        assert torch.equal(at[0], at[1]) and not torch.equal(at[1], at[2])
        with pytest.raises(ValueError, match=r"1500 is above the model's last timestep; .* from 1499 down to 0"):
            sample(subject, patcher=patcher, timesteps="1500")

    def test_auto_is_the_last_timestep_of_any_model(self, subject):
        assert torch.equal(sample(subject, timesteps="auto")["samples"], sample(subject, timesteps="999")["samples"])

    def test_auto_is_the_recipe_of_ours_on_clones_too(self, subject):
        alpha, sigma = subject.reference.alpha_sigma(399)
        recipe = OneStepRecipe(timesteps=(399,), alpha_T=alpha, sigma_T=sigma)
        patcher = with_metadata(recipe=recipe).clone()
        got = sample(subject, patcher=patcher, timesteps="auto")["samples"]
        assert relative_error(got, sample(subject, timesteps="399")["samples"]) < 1e-6

    def test_the_recipes_noise_level_wins_over_the_schedules(self, subject):
        """SwiftBrush's alpha_T^2 = 0.0047, where Stable Diffusion's schedule has 0.00466."""
        alpha, sigma = 0.0047**0.5, (1 - 0.0047) ** 0.5
        patcher = with_metadata(recipe=OneStepRecipe(timesteps=(999,), alpha_T=alpha, sigma_T=sigma))
        output = subject.reference.output(noise(), 999, subject.condition(1))
        expected = (noise().double() - sigma * output) / alpha
        assert relative_error(sample(subject, patcher=patcher, timesteps="auto")["samples"], expected) < 1e-6
        assert relative_error(sample(subject)["samples"], expected) > 1e-3


class TestSize:
    @pytest.mark.parametrize(
        ("size", "warned"), [((SIDE, SIDE), 0), ((SIDE, 12), 0), ((16, SIDE), 1), ((SIDE, 4), 1), ((64, 64), 1)]
    )
    def test_a_picture_of_an_untrained_size_is_made_with_a_warning(self, size, warned, caplog):
        """SIDE is 8, as in the network's config; the file has no decoder, so Stable Diffusion's is assumed."""
        patcher = with_metadata()
        found = sample(case("sd15"), empty_latent(size=size), patcher=patcher)["samples"]
        assert found.shape[-2:] == size and bool(found.isfinite().all())
        warnings = [record.getMessage() for record in caplog.records if "but the latent has" in record.getMessage()]
        assert len(warnings) == warned
        wanted = f"this model was trained for 64 x 64 pixels, but the latent has {8 * size[1]} x {8 * size[0]}"
        assert all(wanted in text for text in warnings)

    def test_there_is_no_warning_when_the_size_is_unknown(self, subject, caplog):
        config = metadata_of(random_unet("sd15")).unet
        patcher = with_metadata(unet={key: value for key, value in config.items() if key != "sample_size"})
        sample(subject, empty_latent(size=(4 * SIDE, 4 * SIDE)), patcher=patcher)
        assert "but the latent has" not in caplog.text


class TestWrongInput:
    @pytest.mark.parametrize(
        ("timesteps", "message"),
        [
            ("", "timesteps is empty"),
            ("ten", "'ten' is not a whole number"),
            ("-1", "'-1' is not a whole number"),
            ("399.5", "'399.5' is not a whole number"),
            ("1000", "1000 is above the model's last timestep"),
            ("9" * 5000, r"9{60}\.\.\. is above the model's last timestep"),
            ("249, 999", "are not strictly decreasing"),
            ("999, 999", "are not strictly decreasing"),
        ],
    )
    def test_invalid_timesteps(self, subject, timesteps, message):
        with pytest.raises(ValueError, match=message) as caught:
            sample(subject, timesteps=timesteps)
        assert '"999, 749, 499, 249"' in str(caught.value)

    def test_a_schedule_without_this_timestep(self, subject):
        patcher = ModelSamplingDiscrete().patch(subject.patcher, "lcm", zsnr=False)[0]
        assert torch.isfinite(sample(subject, patcher=patcher, timesteps="999, 499")["samples"]).all()
        with pytest.raises(ValueError, match=r"timestep 749 .* the nearest is 7[35]9.*ModelSampling node"):
            sample(subject, patcher=patcher, timesteps="999, 749")

    def test_another_kind_of_prediction(self, subject):
        patcher = ModelSamplingSD3().patch(subject.patcher, shift=3.0)[0]
        with pytest.raises(ValueError, match=r"CONST.*expected epsilon, v or x0 prediction"):
            sample(subject, patcher=patcher)


@pytest.mark.parametrize(
    ("has_recipe", "timesteps", "preset", "words"),
    [
        (True, "auto", "auto", "One-Step Sampler: 1 step at timestep 999, by the file's recipe"),
        (False, " Auto ", "auto", "by auto, as the model has no recipe. If the picture is noise or blurred"),
        (False, "999", "auto", "1 step at timestep 999, as given; the model has no recipe"),
        (False, "auto", "DMD2 SD1.5", "by preset DMD2 SD1.5"),
        (True, "auto", "DMD2 SD1.5", "by preset DMD2 SD1.5, instead of the file's own recipe, which auto uses"),
    ],
)
def test_the_log_says_what_is_done_and_which_setting_decided_it(
    has_recipe, timesteps, preset, words, caplog, monkeypatch
):
    """Where no setting decided it, the node says so, too."""
    shown = []
    monkeypatch.setattr("snoopi_core.host.one_step.show_text", shown.append)
    subject = case("sd15")
    patcher = subject.patcher.clone()
    recipe = OneStepRecipe(timesteps=(999,), alpha_T=0.0683, sigma_T=0.99766) if has_recipe else None
    set_metadata(patcher, get_metadata(patcher).model_copy(update={"recipe": recipe}))
    with caplog.at_level("INFO"):
        latent = {"samples": empty_latent()}
        one_step(patcher, conditioning(subject.condition(1)), latent, seed=1, timesteps=timesteps, preset=preset)
    assert words in caplog.text
    assert len(shown) == ("by auto" in words)


@pytest.mark.parametrize(("timesteps", "count"), [("4", 1), ("19", 1), ("20", 0), ("999, 4", 0), ("auto", 0)])
def test_a_timestep_that_looks_like_a_number_of_steps_is_used_with_a_warning(timesteps, count, caplog):
    subject = case("sd15")
    with caplog.at_level("WARNING"):
        latent = {"samples": empty_latent()}
        out = one_step(subject.patcher, conditioning(subject.condition(1)), latent, seed=1, timesteps=timesteps)
    assert caplog.text.count("it is not a number of steps") == count
    assert out["samples"].shape == empty_latent().shape
