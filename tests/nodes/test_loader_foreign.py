"""PG-SB Loader: third-party models, recognised by the host, give diffusers' results for the same weights."""

from __future__ import annotations

import pytest
import torch
from exports import assert_refused, rewritten
from figures import measured
from full_size import single_file_weights, write_sparse
from full_size_parts import PREFIX, prefixed
from reference import relative_error
from safetensors.torch import save_file
from small_models import SMALL, small_pixart, unet_file

from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.formats.tensor_file import open_tensor_file
from snoopi_core.host.loading.attachment import get_metadata
from snoopi_core.host.loading.recognise import recognise

pytestmark = pytest.mark.host

NO_SIZES = {"resolution": None, "aspect_ratio": None}


class TestOutputs:
    @pytest.mark.parametrize("name", SMALL)
    @torch.no_grad()
    def test_unets_of_single_files(self, folder, loader, name):
        unet = unet_file(folder / "small.safetensors", name)
        model = loader.execute("small.safetensors").result[0]
        x, t = torch.randn(2, 4, 8, 8), torch.tensor([999, 999])
        context = torch.randn(2, 77, SMALL[name]["cross_attention_dim"])
        y = added = None
        if name == "SDXL":
            pooled, sizes = torch.randn(2, 1280), torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
            added = {"text_embeds": pooled, "time_ids": sizes}
            embed = model.model.embedder
            y = torch.cat([pooled, *(embed(sizes[:, n]) for n in range(6))], dim=1)
        got = model.model.diffusion_model(x, t, context=context, y=y)
        expected = unet(x, t, encoder_hidden_states=context, added_cond_kwargs=added).sample
        measured("loader", f"{name} single file", "relative error", relative_error(got, expected), 2e-6)

    @pytest.mark.parametrize(
        ("conditions", "layout"),
        [
            *((False, "single file"), (True, "diffusers layout")),
            pytest.param(False, "diffusers layout", marks=pytest.mark.full),
            pytest.param(True, "single file", marks=pytest.mark.full),
        ],
    )
    @torch.no_grad()
    def test_pixart(self, folder, loader, layout, conditions):
        transformer = small_pixart(conditions)
        weights = transformer.state_dict()
        if layout == "single file":
            weights = prefixed(pixart_to_single_file(weights))
        save_file(weights, folder / "pixart.safetensors")
        model = loader.execute("pixart.safetensors").result[0]
        x, t, context = torch.randn(1, 4, 64, 64), torch.tensor([400]), torch.randn(1, 20, 4096)
        sizes = {"resolution": torch.tensor([[512.0, 512.0]]), "aspect_ratio": torch.tensor([[1.0]])}
        got = model.model.diffusion_model(x, t, context=context)
        expected = transformer(x, context, t, added_cond_kwargs=sizes if conditions else NO_SIZES).sample[:, :4]
        measured("loader", f"PixArt {layout}", "relative error", relative_error(got, expected), 2e-6)

    def test_the_host_can_open_them_again(self, folder, loader):
        """As it does for a second GPU."""
        unet_file(folder / "small.safetensors")
        model = loader.execute("small.safetensors").result[0]
        again = model.cached_patcher_init[0](*model.cached_patcher_init[1])
        for one, other in zip(model.model_state_dict().items(), again.model_state_dict().items(), strict=True):
            assert one[0] == other[0] and torch.equal(one[1], other[1])


class TestMessages:
    def test_a_foreign_model_has_no_metadata_and_its_settings_are_logged(self, folder, loader, caplog):
        unet_file(folder / "plain.safetensors")
        with caplog.at_level("INFO"):
            model, clip, _ = loader.execute("plain.safetensors").result
        assert get_metadata(model) is None and clip is None
        assert "plain.safetensors: recognised as SD15 (single file), EPS prediction, no recipe" in caplog.text
        assert "plain.safetensors contains no text encoder and no VAE" in caplog.text

    def test_harmless_keys_are_logged_once(self, folder, loader, caplog):
        extra = {
            "alphas_cumprod": usual_schedule(),
            "betas": torch.zeros(1000),
            "model_ema.decay": torch.zeros(()),
            "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
            "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        }
        unet_file(folder / "old.safetensors", **extra)
        with caplog.at_level("INFO"):
            loader.execute("old.safetensors")
        lines = [r.getMessage() for r in caplog.records if "harmless" in r.getMessage()]
        assert len(lines) == 1 and "5 known harmless key(s) ignored: alphas_cumprod; betas; cond_stage" in lines[0]

    @pytest.mark.parametrize(
        "key",
        [
            PREFIX + "time_embedding.cond_proj.weight",
            PREFIX + "input_blocks.0.0.lora",
            "control_model.weight",
            "first_stage_model.loss.logvar",
            "edm_mean",
        ],
    )
    def test_no_other_key_is_ignored(self, folder, key):
        unet_file(folder / "odd.safetensors", **{key: torch.zeros(2)})
        assert_refused(folder / "odd.safetensors", rf"(not expected {key.removeprefix(PREFIX)}|{key}|VAE weights)")

    def test_missing_keys_are_counted_and_the_first_five_prefixed(self, folder):
        def change(tensors, header):
            for key in [key for key in tensors if ".attn2." in key]:
                del tensors[key]

        unet_file(folder / "whole.safetensors")
        path = rewritten(folder / "whole.safetensors", change)
        assert_refused(
            path, r"(missing .*; ){4}missing .*; and \d+ more|cannot be recognised|ComfyUI recognises no network"
        )

        def drop(tensors, header):
            for key in [key for key in tensors if ".norm3." in key]:
                del tensors[key]

        path = rewritten(folder / "whole.safetensors", drop)
        assert_refused(path, r"UNet weights and config do not match: (missing \S+norm3.\w+; ){5}and 3 more")

    @pytest.mark.parametrize(
        ("gone", "message"),
        [
            ("transformer_blocks.0.attn1.to_k.weight", r"blocks.0.attn.qkv.weight \(part 2 of 3\)"),
            ("transformer_blocks.0.attn2.to_v.bias", r"blocks.0.cross_attn.kv_linear.bias \(part 2 of 2\)"),
            ("proj_out.bias", "missing final_layer.linear.bias"),
        ],
    )
    def test_weights_that_the_host_would_leave_uninitialised(self, folder, gone, message):
        weights = dict(small_pixart(False).state_dict())
        del weights[gone]
        save_file(weights, folder / "hole.safetensors")
        assert_refused(folder / "hole.safetensors", message)

    def test_weights_that_the_hosts_conversion_would_expand(self, folder):
        weights = dict(small_pixart(False).state_dict())
        weights["transformer_blocks.0.attn1.to_k.weight"] = torch.zeros(1, 1152)
        save_file(weights, folder / "stretched.safetensors")
        assert_refused(folder / "stretched.safetensors", "differ in shape, first of blocks.0.attn.qkv.weight")

    def test_other_networks_are_refused_by_name(self, folder):
        save_file({"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(2)}, folder / "flux.safetensors")
        assert_refused(
            folder / "flux.safetensors", "ComfyUI recognises no network.*double_blocks.*opens SD1.x, SD2.x, SDXL"
        )


def usual_schedule():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class TestPredictionAndSchedule:
    def test_a_schedule_in_the_file_is_used(self, folder, loader, caplog):
        """Down to alpha_T^2 = 0, for which the host uses a very large noise level."""
        bars = usual_schedule().sqrt()
        bars = (bars - bars[-1]) / (bars[0] - bars[-1]) * bars[0]
        unet_file(folder / "zero.safetensors", alphas_cumprod=bars**2)
        with caplog.at_level("INFO"):
            sampling = loader.execute("zero.safetensors").result[0].get_model_object("model_sampling")
        assert "zero.safetensors: its own noise schedule is used" in caplog.text
        expected = ((1 - bars**2) / bars**2).sqrt()
        assert relative_error(sampling.sigmas[:-1], expected[:-1]) < 1e-5
        assert float(sampling.sigmas[-1]) > 4000

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_the_usual_schedule_is_left_alone(self, folder, loader, caplog, dtype):
        """Rounded to half precision, it would be off by 7 % at the first timestep."""
        unet_file(folder / "usual.safetensors", alphas_cumprod=usual_schedule().to(dtype))
        with caplog.at_level("INFO"):
            sampling = loader.execute("usual.safetensors").result[0].get_model_object("model_sampling")
        assert "noise schedule" not in caplog.text
        assert float(sampling.sigmas[0]) == pytest.approx(0.0292, abs=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
    def test_a_schedule_in_eight_bits_is_not_used(self, folder, loader, caplog, dtype):
        """Most of its timesteps would share a noise level."""
        unet_file(folder / "coarse.safetensors", alphas_cumprod=usual_schedule().to(dtype))
        with caplog.at_level("INFO"):
            sampling = loader.execute("coarse.safetensors").result[0].get_model_object("model_sampling")
        assert "its alphas_cumprod is ignored, torch.float8" in caplog.text
        assert len(set(sampling.sigmas.tolist())) == 1000

    @pytest.mark.parametrize(
        "bars",
        [
            torch.ones(2, 3),
            torch.arange(1000),
            torch.arange(1000.0),
            torch.zeros(1000),
            torch.full((1000,), float("nan")),
        ],
    )
    def test_invalid_schedules(self, folder, bars):
        unet_file(folder / "bad.safetensors", alphas_cumprod=bars)
        assert_refused(folder / "bad.safetensors", "its alphas_cumprod (is|do not decrease)")

    @pytest.mark.parametrize(("name", "kind"), [("SD1.5", "V_PREDICTION"), ("SDXL", "V_PREDICTION")])
    def test_the_mark_of_v_prediction(self, folder, loader, caplog, name, kind):
        unet_file(folder / "v.safetensors", name, v_pred=torch.zeros(0))
        with caplog.at_level("INFO"):
            model = loader.execute("v.safetensors").result[0]
        assert model.model.model_type.name == kind and f"{kind} prediction" in caplog.text

    def test_marks_that_cannot_be_read(self, folder):
        unet_file(folder / "mark.safetensors", "SDXL", **{"edm_vpred.sigma_max": torch.zeros(3)})
        assert_refused(folder / "mark.safetensors", "its kind of prediction cannot be recognised")

    @pytest.mark.parametrize(("spread", "kind"), [(0.2, "V_PREDICTION"), (0.01, "EPS")])
    def test_sd2_by_the_hosts_rule(self, tmp_path, spread, kind):
        """The rule uses the spread of one bias of the full-size network."""
        key = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
        weights = single_file_weights("SD2.1")
        weights[key] = (spread * torch.randn(320)).half()
        found = recognise(open_tensor_file(write_sparse(tmp_path / "sd2.safetensors", prefixed(weights))))
        assert found.config.model_type(found.network, "").name == kind


class TestPixArtsLatents:
    def scale(self, loader, name, **settings):
        return loader.execute(name, **settings).result[0].model.latent_format.scale_factor

    def test_alpha_512_and_sigma_have_the_same_keys(self, folder, loader, caplog):
        save_file(small_pixart(False).state_dict(), folder / "guess.safetensors")
        assert self.scale(loader, "guess.safetensors") == 0.13025
        assert "PixArt-sigma is assumed" in caplog.text and "set PG-SB Loader's `latents` to SD1.x" in caplog.text
        caplog.clear()
        assert self.scale(loader, "guess.safetensors", latents="SD1.x") == 0.18215
        assert "is assumed" not in caplog.text

    @pytest.mark.parametrize(("tokens", "expected"), [(120, 0.18215), (300, 0.13025)])
    def test_a_caption_table_decides(self, folder, loader, caplog, tokens, expected):
        weights = prefixed(pixart_to_single_file(small_pixart(False).state_dict()))
        weights[PREFIX + "y_embedder.y_embedding"] = torch.zeros(tokens, 4096)
        weights[PREFIX + "pos_embed"] = torch.zeros(1, 1024, 1152)
        save_file(weights, folder / "table.safetensors")
        with caplog.at_level("INFO"):
            assert self.scale(loader, "table.safetensors") == expected
        assert "is assumed" not in caplog.text and "ignored: model.diffusion_model.pos_embed" in caplog.text

    def test_size_conditions_decide(self, folder, loader):
        save_file(small_pixart(True).state_dict(), folder / "alpha.safetensors")
        assert self.scale(loader, "alpha.safetensors") == 0.18215
