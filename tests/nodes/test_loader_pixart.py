"""PG-SB Loader: PixArt students of the trainer, of any size, with their own noise schedule and noise level."""

from __future__ import annotations

import pytest
import torch
from exports import RECIPE, assert_refused, changed_config, pixart_export, rewritten
from figures import measured
from reference import relative_error

from snoopi_core.formats.checkpoint import PREFIXES, OneStepRecipe
from snoopi_core.host.loading.loader import load_checkpoint
from snoopi_core.host.one_step import one_step

pytestmark = pytest.mark.host

NO_SIZES = {"resolution": None, "aspect_ratio": None}


def sizes(height, width):
    return {
        "resolution": torch.tensor([[8.0 * height, 8.0 * width]]),
        "aspect_ratio": torch.tensor([[height / width]]),
    }


class TestOutputs:
    @pytest.mark.parametrize(
        ("config", "side"),
        [
            ({}, 64),
            ({"out_channels": 4}, 64),
            ({"use_additional_conditions": True, "attention_head_dim": 18, "cross_attention_dim": 36}, 64),
            ({"sample_size": 128}, 128),
            ({"sample_size": 40}, 40),
            ({"sample_size": 64, "interpolation_scale": 2}, 64),
        ],
        ids=["512", "without variance", "with sizes", "1024", "320 pixels", "interpolated"],
    )
    @pytest.mark.both_hosts
    @torch.no_grad()
    def test_the_network(self, folder, loader, config, side):
        transformer = pixart_export(folder / "pixart.safetensors", **config)
        model = loader.execute("pixart.safetensors").result[0]
        x, t, context = torch.randn(1, 4, side, side), torch.tensor([400]), torch.randn(1, 9, 16)
        got = model.model.diffusion_model(x, t, context=context)
        added = sizes(side, side) if "use_additional_conditions" in config else NO_SIZES
        expected = transformer(x, context, t, added_cond_kwargs=added).sample[:, :4]
        measured("loader", "PixArt our export", "relative error", relative_error(got, expected), 2e-6)

    @torch.no_grad()
    def test_a_students_noise_level_is_honoured(self, folder, loader):
        """alpha_T^2 = 0.0047, where the schedule has 4.0e-5; then x0 = (z - sigma_T eps) / alpha_T."""
        transformer = pixart_export(folder / "student.safetensors", RECIPE)
        model = loader.execute("student.safetensors").result[0]
        sampling = model.get_model_object("model_sampling")
        sigma = (0.9953 / 0.0047) ** 0.5
        measured("loader", "PixArt our export", "alpha_T^2 = 0.0047", abs(float(sampling.sigma_max) / sigma - 1), 1e-6)
        bars = (1 - torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)).cumprod(0)
        assert relative_error(sampling.sigmas[:-1], ((1 - bars) / bars).sqrt()[:-1]) < 1e-5
        context = torch.randn(1, 9, 16)
        latent = {"samples": torch.zeros(1, 4, 64, 64)}
        x0 = one_step(model, [[context, {}]], latent, seed=5, timesteps="auto")["samples"] * 0.18215
        z = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(5))
        eps = transformer(z, context, torch.tensor([999]), added_cond_kwargs=NO_SIZES).sample[:, :4]
        x0_expected = (z - RECIPE.sigma_T * eps) / RECIPE.alpha_T
        measured("loader", "PixArt our export", "x0, relative error", relative_error(x0, x0_expected), 2e-6)

    def test_the_host_can_open_it_again(self, folder, loader):
        pixart_export(folder / "again.safetensors")
        model = loader.execute("again.safetensors").result[0]
        again = model.cached_patcher_init[0](*model.cached_patcher_init[1])
        for one, other in zip(model.model_state_dict().items(), again.model_state_dict().items(), strict=True):
            assert one[0] == other[0] and torch.equal(one[1], other[1])

    def test_a_file_without_a_text_encoder_says_so(self, folder, loader, caplog):
        pixart_export(folder / "bare.safetensors", OneStepRecipe(timesteps=(400,), alpha_T=0.6, sigma_T=0.8))
        with caplog.at_level("INFO"):
            loader.execute("bare.safetensors")
        assert "bare.safetensors: 'tiny PixArt', timesteps 400, recommended alpha 0.8 for NASA Apply" in caplog.text
        assert "bare.safetensors contains no text encoder and no VAE" in caplog.text


@pytest.fixture(scope="module")
def good(folder):
    pixart_export(folder / "good-pixart.safetensors")
    return folder / "good-pixart.safetensors"


class TestBadFiles:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_layers": 3}, r"PixArt weights and config do not match: (missing blocks.2\S+; ){5}and \d+ more"),
            ({"num_layers": 10**9}, "PixArt num_layers is 1000000000, expected a whole number from 1 to 200"),
            ({"num_attention_heads": 0}, "PixArt num_attention_heads is 0"),
            ({"num_attention_heads": 10**9}, "PixArt num_attention_heads is 1000000000"),
            ({"attention_head_dim": 5}, "PixArt is 10 wide, expected a multiple of 4"),
            ({"attention_head_dim": 2**14}, "PixArt is 32768 wide"),
            ({"attention_head_dim": None}, "PixArt attention_head_dim is None"),
            ({"cross_attention_dim": 32}, "PixArt cross_attention_dim is 32, expected 24"),
            ({"out_channels": 5}, "PixArt out_channels is 5, expected 4 or 8"),
            ({"out_channels": [8]}, r"PixArt out_channels is \[8\]"),
            ({"caption_channels": None}, "PixArt caption_channels is None"),
            ({"caption_channels": 2**16}, r"y_embedder.y_proj.fc1.weight has shape \(24, 16\), expected \(24, 65536\)"),
            ({"sample_size": 32}, "PixArt sample_size is 32, expected a whole number from 33"),
            ({"patch_size": 4}, "no PixArt with these settings: patch_size is 4, expected 2"),
            ({"norm_type": "layer_norm"}, "norm_type is 'layer_norm'"),
            ({"interpolation_scale": 0}, "PixArt interpolation_scale is 0"),
            ({"interpolation_scale": float("nan")}, "PixArt interpolation_scale is nan"),
            ({"use_additional_conditions": True}, "missing csize_embedder.mlp.0.weight"),
            ({"use_additional_conditions": "no"}, "use_additional_conditions is 'no', expected true or false"),
        ],
    )
    def test_configs(self, good, changes, message):
        assert_refused(rewritten(good, changed_config("unet", **changes)), message)

    def test_clip_is_not_its_text_encoder(self, good):
        def change(tensors, header):
            changed_config(None, text_encoder={})(tensors, header)
            tensors[PREFIXES["text_encoder"] + "x"] = torch.zeros(1)

        assert_refused(rewritten(good, change), "it contains a CLIP text encoder, expected none")

    def test_a_unet_under_pixarts_name(self, good):
        assert_refused(
            rewritten(good, changed_config(None, family="unet")),
            "ComfyUI has no UNet with these settings: norm_eps is 1e-06",
        )

    def test_a_weight_of_whole_numbers(self, good):
        def change(tensors, header):
            key = PREFIXES["unet"] + "final_layer.linear.bias"
            tensors[key] = tensors[key].to(torch.int64)

        assert_refused(
            rewritten(good, change), "final_layer.linear.bias has dtype torch.int64, expected floating point"
        )

    def test_a_missing_and_a_strange_weight(self, good):
        def change(tensors, header):
            del tensors[PREFIXES["unet"] + "t_block.1.bias"]
            tensors[PREFIXES["unet"] + "t_block.2.bias"] = torch.zeros(1)

        assert_refused(rewritten(good, change), "missing t_block.1.bias; not expected t_block.2.bias")


@pytest.mark.both_hosts
def test_the_files_of_both_small_worlds_open_as_before(pack_root):
    files = sorted((pack_root / "models").glob("*.safetensors"))
    assert [path.stem.split("-")[1] for path in files] == ["avatars", "avatars", "shapes", "shapes"]
    for path, channels in zip(files, (16, 16, 4, 4), strict=True):
        model, clip, vae = load_checkpoint(path)
        assert clip is not None and vae.first_stage_model is not None
        assert model.model.latent_format.latent_channels == channels
