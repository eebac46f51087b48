"""PG-SB Loader: an exported file gives the same results in the host as in diffusers and transformers."""

from __future__ import annotations

import dataclasses
import importlib

import nodes as host_nodes
import pytest
import torch
from diffusers import DDPMScheduler
from exports import RECIPE, export
from reference import relative_error

from snoopi_core.formats.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from snoopi_core.host.loading.attachment import get_metadata
from snoopi_core.host.one_step import one_step

pytestmark = pytest.mark.host

PROMPT = "A red ring, above a white wall -- isn't it?"


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def pair(request, folder, loader):
    """(the backbone in diffusers, MODEL, CLIP, VAE of the host)."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"tiny-{request.param}.safetensors"
    backbone = export(folder / name, request.param)
    return backbone, *loader.execute(name).result


@pytest.mark.both_hosts
class TestRoundTrip:
    @pytest.mark.parametrize("t", [999, 399, 3])
    def test_the_network(self, pair, t):
        backbone, model, _, _ = pair
        x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
        with torch.no_grad():
            got = model.model.diffusion_model(x, torch.tensor([t, t]), context=context)
            expected = backbone.network(x, t, encoder_hidden_states=context).sample
        assert relative_error(got, expected) <= 1e-5

    @pytest.mark.parametrize("prompt", [PROMPT, "", "triangle"])
    def test_the_text_encoder(self, pair, prompt):
        backbone, _, clip, _ = pair
        tokens = clip.tokenize(prompt)
        ids = backbone.tokenizer(prompt, padding="max_length", max_length=77).input_ids
        assert [token for token, _ in tokens["l"][0]] == ids
        got = clip.encode_from_tokens_scheduled(tokens)[0][0]
        assert relative_error(got, backbone.encode([prompt]).states) <= 1e-5

    def test_prompts_that_are_padded_with_zero(self, folder, loader):
        """As in SD2.x. Weighted words are compared with the empty prompt, which must have the same padding."""
        backbone = export(folder / "sd1.safetensors")
        stock = read_checkpoint(folder / "sd1.safetensors")
        zero = dataclasses.replace(stock, metadata=stock.metadata.model_copy(update={"pad_token_id": 0}))
        write_checkpoint(folder / "zero.safetensors", zero)
        clip = loader.execute("zero.safetensors").result[1]
        ids = backbone.tokenizer(PROMPT).input_ids
        empty = backbone.tokenizer("").input_ids
        tokens = clip.tokenize(PROMPT)
        assert [token for token, _ in tokens["l"][0]] == ids + [0] * (77 - len(ids))

        def reference(ids):
            with torch.no_grad():
                return backbone.text_encoder(torch.tensor([ids + [0] * (77 - len(ids))])).last_hidden_state

        assert relative_error(clip.encode_from_tokens_scheduled(tokens)[0][0], reference(ids)) <= 1e-5
        got = clip.encode_from_tokens_scheduled(clip.tokenize("(triangle:1.5)"))[0][0]
        plain, nothing = reference(backbone.tokenizer("triangle").input_ids), reference(empty)
        expected = plain.clone()
        expected[:, 1] += 0.5 * (plain - nothing)[:, 1]
        assert relative_error(got, expected) <= 1e-5

    def test_the_vae(self, pair):
        backbone, model, _, vae = pair
        latents = torch.randn(2, 4, 8, 8)
        got = vae.decode(latents).movedim(-1, 1)
        with torch.no_grad():
            expected = (backbone.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
        assert relative_error(got, expected) <= 1e-5
        pixels = torch.rand(1, 3, 64, 64) * 2 - 1
        with torch.no_grad():
            # Mean and log variance; the host's encode then samples from them.
            moments = vae.first_stage_model.quant_conv(vae.first_stage_model.encoder(pixels))
            assert relative_error(moments, backbone.vae.encode(pixels).latent_dist.parameters) <= 1e-5
        assert model.model.latent_format.scale_factor == pytest.approx(0.7)

    def test_from_the_text_to_the_image(self, pair):
        backbone, model, clip, vae = pair
        prompt = "a red ring on the left"
        positive = host_nodes.CLIPTextEncode().encode(clip, prompt)[0]
        latent = host_nodes.EmptyLatentImage().generate(64, 64, 2)[0]
        samples = one_step(model, positive, latent, seed=5, timesteps="auto")["samples"]
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            output = backbone.network(
                x, 999, encoder_hidden_states=backbone.encode([prompt]).states.expand(2, -1, -1)
            ).sample
        alpha, sigma = RECIPE.alpha_T, RECIPE.sigma_T
        x0 = (x - sigma * output) / alpha if backbone.prediction_type == "epsilon" else alpha * x - sigma * output
        assert relative_error(samples * 0.7, x0) <= 1e-5
        assert relative_error(vae.decode(samples).movedim(-1, 1), backbone.decode(x0)) <= 1e-4

    def test_the_schedule(self, pair):
        """Everywhere but at the recipe's own timestep, the noise levels are diffusers'."""
        _, model, _, _ = pair
        bars = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod.double()
        sigmas = model.get_model_object("model_sampling").sigmas
        assert relative_error(sigmas[:-1], ((1 - bars) / bars).sqrt()[:-1]) < 1e-6
        assert float(sigmas[-1]) == pytest.approx(RECIPE.sigma_T / RECIPE.alpha_T)

    def test_the_metadata_travels_with_clones(self, pair):
        _, model, _, _ = pair
        metadata = get_metadata(model.clone().clone())
        assert metadata.recommended_alpha == 0.8 and metadata.recipe.timesteps == (999,)

    def test_the_host_can_open_the_parts_again(self, pair):
        """As it does for a second GPU."""
        _, model, clip, vae = pair
        for patcher in (model, clip.patcher, vae.patcher):
            again = patcher.cached_patcher_init[0](*patcher.cached_patcher_init[1])
            for one, other in zip(patcher.model_state_dict().items(), again.model_state_dict().items(), strict=True):
                assert one[0] == other[0]
                assert torch.equal(one[1], other[1])


@pytest.mark.both_hosts
def test_the_stock_sampler_starts_at_the_recipes_noise_level(folder, loader):
    import comfy.samplers

    export(folder / "stock.safetensors")
    model = loader.execute("stock.safetensors").result[0]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 1)
    assert float(sigmas[0]) == pytest.approx(RECIPE.sigma_T / RECIPE.alpha_T)


class TestAnySize:
    def test_a_vae_of_another_factor_and_another_number_of_channels(self, folder, loader):
        """Sixteen channels at a quarter of the size: Empty Latent Image still means pixels."""
        from diffusers import AutoencoderKL, UNet2DConditionModel

        from snoopi_core.formats.checkpoint import Metadata
        from snoopi_core.formats.layouts import to_single_file, unet_rename, vae_rename

        unet = UNet2DConditionModel(
            in_channels=16, out_channels=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=2,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3, layers_per_block=1,
            up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=16,
        )  # fmt: skip
        metadata = Metadata(
            title="other", role="student", prediction_type="epsilon", unet=dict(unet.config), vae=dict(vae.config),
            latent_scale=2.0,
        )  # fmt: skip
        checkpoint = Checkpoint(
            metadata=metadata,
            unet=to_single_file(unet.state_dict(), unet_rename(unet.config)),
            vae=to_single_file(vae.state_dict(), vae_rename(vae.config)),
        )
        write_checkpoint(folder / "sixteen.safetensors", checkpoint)
        model, clip, opened = loader.execute("sixteen.safetensors").result
        assert clip is None
        latent = host_nodes.EmptyLatentImage().generate(64, 64, 1)[0]
        samples = one_step(model, [[torch.randn(1, 77, 32), {}]], latent, seed=0, timesteps="999")["samples"]
        assert samples.shape == (1, 16, 16, 16)
        assert opened.decode(samples).shape == (1, 64, 64, 3)

    def test_a_file_with_nothing_but_the_network(self, folder, loader, caplog):
        export(folder / "whole.safetensors")
        whole = read_checkpoint(folder / "whole.safetensors")
        bare = whole.metadata.model_copy(update={"text_encoder": None, "vae": None})
        write_checkpoint(folder / "bare.safetensors", Checkpoint(metadata=bare, unet=whole.unet))
        model, clip, vae = loader.execute("bare.safetensors").result
        assert "bare.safetensors contains no text encoder and no VAE" in caplog.text
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        samples = one_step(model, [[torch.randn(1, 77, 32), {}]], latent, seed=0, timesteps="auto")["samples"]
        assert torch.isfinite(samples).all()
        with pytest.raises(RuntimeError, match="clip input is invalid: None"):
            host_nodes.CLIPTextEncode().encode(clip, "a prompt")
        with pytest.raises(RuntimeError, match="VAE is invalid: None"):
            vae.decode(torch.zeros(1, 4, 8, 8))

    def test_the_log_says_what_was_opened(self, folder, loader, caplog):
        export(folder / "logged.safetensors")
        with caplog.at_level("INFO"):
            loader.execute("logged.safetensors")
        line = "logged.safetensors: 'tiny', 64 x 64 pixels, timesteps 999, recommended alpha 0.8 for NASA Apply"
        assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("logged")] == [line]
        whole = read_checkpoint(folder / "logged.safetensors")
        plain = whole.metadata.model_copy(update={"recipe": None, "recommended_alpha": None, "title": "a\nb"})
        write_checkpoint(folder / "plain.safetensors", dataclasses.replace(whole, metadata=plain))
        with caplog.at_level("INFO"):
            loader.execute("plain.safetensors")
        assert "plain.safetensors: 'a b', 64 x 64 pixels, no recipe, no recommended alpha for NASA Apply" in caplog.text


class TestFiles:
    def test_names_of_the_hosts_folders_and_the_packs(self, folder, host_base, loader, pack_root):
        export(folder / "sub" / "nested.safetensors")
        export(host_base / "models" / "diffusion_models" / "elsewhere.safetensors")
        (folder / "pickled.ckpt").write_bytes(b"\x80\x04")
        options = loader.GET_SCHEMA().inputs[0].options
        files = importlib.import_module("snoopi_pack.snoopi_core.host.loading.files")
        names = files.checkpoint_names()
        assert {"elsewhere.safetensors", "sub/nested.safetensors"} <= {name.replace("\\", "/") for name in names}
        assert "pickled.ckpt" not in names
        shipped = {path.name for path in (pack_root / "models").glob("*.safetensors")}
        assert shipped <= set(names) and shipped <= set(options)

    def test_a_new_file_of_the_same_name_is_detected(self, folder, loader):
        export(folder / "again.safetensors")
        before = loader.fingerprint_inputs("again.safetensors")
        assert loader.fingerprint_inputs("again.safetensors") == before
        export(folder / "again.safetensors", "v_prediction")
        assert loader.fingerprint_inputs("again.safetensors") != before
