"""PG-SB Loader: a file of the exporter, opened in the host, computes what diffusers and transformers do."""

from __future__ import annotations

import dataclasses
import importlib
import json
import struct

import nodes as host_nodes
import pytest
import torch
from diffusers import DDPMScheduler
from reference import relative_error
from safetensors.torch import load_file, save_file
from tiny import tiny_backbone

from snoopi_core.checkpoint import (
    PREFIXES,
    Checkpoint,
    CheckpointError,
    OneStepRecipe,
    read_checkpoint,
    write_checkpoint,
)
from snoopi_core.host.attachment import get_metadata
from snoopi_core.host.loader import load_checkpoint
from snoopi_core.host.one_step import one_step
from training.export import export_backbone

pytestmark = pytest.mark.host

PROMPT = "A red ring, above a white wall -- isn't it?"
RECIPE = OneStepRecipe(timesteps=(999,), alpha_T=0.0047**0.5, sigma_T=(1 - 0.0047) ** 0.5)


@pytest.fixture(scope="module")
def folder(host_base):
    return host_base / "models" / "checkpoints"


@pytest.fixture(scope="module")
def loader():
    return importlib.import_module("snoopi_pack.nodes.pgsb_loader").PGSBLoader


def export(path, prediction_type="epsilon"):
    """A file in fp16 and, in fp32, exactly what is in it."""
    backbone = tiny_backbone(prediction_type)
    export_backbone(path, backbone, title="tiny", role="student", recipe=RECIPE, recommended_alpha=0.8)
    for module in (backbone.unet, backbone.vae, backbone.text_encoder):
        module.half().float()
    return backbone


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def pair(request, folder, loader):
    """(the backbone in diffusers, MODEL, CLIP, VAE of the host)."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"tiny-{request.param}.safetensors"
    backbone = export(folder / name, request.param)
    return backbone, *loader.execute(name).result


class TestRoundTrip:
    @pytest.mark.parametrize("t", [999, 399, 3])
    def test_the_network(self, pair, t):
        backbone, model, _, _ = pair
        x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
        with torch.no_grad():
            got = model.model.diffusion_model(x, torch.tensor([t, t]), context=context)
            expected = backbone.unet(x, t, encoder_hidden_states=context).sample
        assert relative_error(got, expected) <= 1e-5

    @pytest.mark.parametrize("prompt", [PROMPT, "", "triangle"])
    def test_the_text_encoder(self, pair, prompt):
        backbone, _, clip, _ = pair
        tokens = clip.tokenize(prompt)
        ids = backbone.tokenizer(prompt, padding="max_length", max_length=77).input_ids
        assert [token for token, _ in tokens["l"][0]] == ids
        got = clip.encode_from_tokens_scheduled(tokens)[0][0]
        assert relative_error(got, backbone.encode([prompt])) <= 1e-5

    def test_prompts_that_are_padded_with_zero(self, folder, loader):
        """As those of SD2.x. Weighted words are measured against the empty prompt, which must be padded so too."""
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
            # Mean and log variance; the host's encode then draws from them.
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
            output = backbone.unet(x, 999, encoder_hidden_states=backbone.encode([prompt]).expand(2, -1, -1)).sample
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

        from snoopi_core.checkpoint import Metadata
        from snoopi_core.layouts import to_single_file, unet_rename, vae_rename

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
        assert "bare.safetensors holds no text encoder and no VAE" in caplog.text
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        samples = one_step(model, [[torch.randn(1, 77, 32), {}]], latent, seed=0, timesteps="auto")["samples"]
        assert torch.isfinite(samples).all()
        with pytest.raises(RuntimeError, match="clip input is invalid: None"):
            host_nodes.CLIPTextEncode().encode(clip, "a prompt")
        with pytest.raises(RuntimeError, match="VAE is invalid: None"):
            vae.decode(torch.zeros(1, 4, 8, 8))

    def test_the_log_says_what_was_opened(self, folder, loader, caplog):
        export(folder / "said.safetensors")
        with caplog.at_level("INFO"):
            loader.execute("said.safetensors")
        line = "said.safetensors: 'tiny', timesteps 999, recommended alpha 0.8 for NASA Apply"
        assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("said")] == [line]
        whole = read_checkpoint(folder / "said.safetensors")
        plain = whole.metadata.model_copy(update={"recipe": None, "recommended_alpha": None, "title": "a\nb"})
        write_checkpoint(folder / "plain.safetensors", dataclasses.replace(whole, metadata=plain))
        with caplog.at_level("INFO"):
            loader.execute("plain.safetensors")
        assert "plain.safetensors: 'a b', no recipe, no recommended alpha for NASA Apply" in caplog.text


class TestFiles:
    def test_names_of_the_hosts_folders_and_the_packs(self, folder, host_base, loader, pack_root):
        export(folder / "sub" / "nested.safetensors")
        export(host_base / "models" / "diffusion_models" / "elsewhere.safetensors")
        (folder / "pickled.ckpt").write_bytes(b"\x80\x04")
        options = loader.GET_SCHEMA().inputs[0].options
        files = importlib.import_module("snoopi_pack.snoopi_core.host.files")
        names = files.checkpoint_names()
        assert {"elsewhere.safetensors", "sub/nested.safetensors"} <= {name.replace("\\", "/") for name in names}
        assert "pickled.ckpt" not in names
        shipped = {path.name for path in (pack_root / "models").glob("*.safetensors")}
        assert shipped <= set(names) and shipped <= set(options)

    @pytest.mark.parametrize(
        "name",
        [
            "../secret.safetensors",
            "/etc/passwd",
            "sub/../../secret.safetensors",
            "nothing.safetensors",
            "",
            "pickled.ckpt",
        ],
    )
    def test_names_lead_nowhere_else(self, folder, loader, name):
        (folder.parent / "secret.safetensors").write_bytes(b"")
        with pytest.raises(
            ValueError, match=r"was not found; available: .*models/checkpoints, models/diffusion_models"
        ):
            loader.execute(name)

    def test_a_new_file_of_the_same_name_is_noticed(self, folder, loader):
        export(folder / "again.safetensors")
        before = loader.fingerprint_inputs("again.safetensors")
        assert loader.fingerprint_inputs("again.safetensors") == before
        export(folder / "again.safetensors", "v_prediction")
        assert loader.fingerprint_inputs("again.safetensors") != before


@pytest.fixture(scope="module")
def good(folder):
    export(folder / "good.safetensors")
    return folder / "good.safetensors"


class TestBadFiles:
    def rewritten(self, good, change):
        """The good file with its tensors or metadata changed."""
        with open(good, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))["__metadata__"]
        tensors = load_file(good)
        change(tensors, header)
        path = good.with_name("changed.safetensors")
        save_file(tensors, path, metadata=header)
        return path

    def changed_config(self, part, **changes):
        def change(tensors, header):
            model = json.loads(header["snoopi.model"])
            target = model if part is None else model[part]
            target.update(changes)
            header["snoopi.model"] = json.dumps(model)

        return change

    def assert_refused(self, path, message):
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint(path)
        assert str(caught.value).startswith(path.name)

    def test_missing_weights(self, good):
        def change(tensors, header):
            for key in [key for key in tensors if "time_embed" in key]:
                del tensors[key]

        self.assert_refused(
            self.rewritten(good, change), "UNet weights and config do not match: missing time_embed.0.weight"
        )

    def test_weights_that_belong_nowhere(self, good):
        def change(tensors, header):
            tensors[PREFIXES["vae"] + "decoder.extra.weight"] = torch.zeros(1)

        self.assert_refused(self.rewritten(good, change), "VAE weights.*not expected decoder.extra.weight")

    def test_weights_of_another_size(self, good):
        def change(tensors, header):
            tensors[PREFIXES["text_encoder"] + "text_model.final_layer_norm.weight"] = torch.zeros(33)

        self.assert_refused(self.rewritten(good, change), r"text encoder weights.*has shape \(33,\), expected \(32,\)")

    @pytest.mark.parametrize(
        ("part", "changes", "message"),
        [
            ("unet", {"block_out_channels": 32}, "UNet block_out_channels is 32, expected a list of 1 to 16 whole"),
            ("unet", {"block_out_channels": [0, 0]}, r"UNet block_out_channels is \[0, 0\], expected a list"),
            ("unet", {"block_out_channels": []}, r"UNet block_out_channels is \[\], expected a list"),
            ("unet", {"block_out_channels": [10**6] * 2}, r"is \[1000000, 1000000\], expected .* to 65536"),
            ("unet", {"block_out_channels": [65536] * 2}, r"weights and config do not match: .* \(32, 4, 3, 3\), exp"),
            ("unet", {"block_out_channels": [16, 32]}, "the host cannot build a UNet of this config .*num_channels"),
            ("unet", {"attention_head_dim": 0}, "UNet attention_head_dim is 0, expected a whole number from 1"),
            ("unet", {"attention_head_dim": "eight"}, "UNet attention_head_dim is 'eight', expected"),
            ("unet", {"attention_head_dim": None}, "UNet attention_head_dim is None, expected"),
            ("unet", {"attention_head_dim": 5}, r"attention_head_dim 5 does not divide block_out_channels \[32, 64\]"),
            ("unet", {"layers_per_block": "1"}, "UNet layers_per_block is '1', expected a whole number"),
            ("unet", {"layers_per_block": True}, "UNet layers_per_block is True, expected"),
            ("unet", {"layers_per_block": [1]}, r"UNet layers_per_block is \[1\], expected .* a list of 2"),
            ("unet", {"layers_per_block": 10**12}, "UNet layers_per_block is 1000000000000, expected"),
            ("unet", {"layers_per_block": 1000}, "UNet weights and config do not match: .* layers, .* tensors"),
            ("unet", {"transformer_layers_per_block": [[1], 1]}, "UNet transformer_layers_per_block is"),
            ("unet", {"down_block_types": [["K"], {}]}, "UNet down_block_types is .*, expected a list of 2 names"),
            ("unet", {"up_block_types": ["UpBlock2D"]}, "UNet up_block_types is .*, expected a list of 2 names"),
            ("unet", {"in_channels": 4.0}, "UNet in_channels is 4.0, expected a whole number"),
            ("unet", {"in_channels": 8}, "UNet out_channels is 4, expected 8, as in_channels"),
            ("unet", {"cross_attention_dim": [32, 32]}, r"UNet cross_attention_dim is \[32, 32\], expected"),
            ("unet", {"use_linear_projection": "no"}, "UNet use_linear_projection is 'no', expected true or false"),
            ("unet", {"addition_embed_type": "text_time"}, "addition_time_embed_dim is None, expected a whole number"),
            (
                "unet",
                {"addition_embed_type": "text_time", "addition_time_embed_dim": 8},
                "the host has no UNet with addition_time_embed_dim 8, only 256",
            ),
            ("vae", {"block_out_channels": "32"}, "VAE block_out_channels is '32', expected a list"),
            ("vae", {"block_out_channels": [65536] * 4}, "VAE weights and config do not match"),
            ("vae", {"layers_per_block": [1, 1]}, r"VAE layers_per_block is \[1, 1\], expected a whole number"),
            ("vae", {"layers_per_block": 1000}, "VAE weights and config do not match: 1000 layers"),
            ("text_encoder", {"num_hidden_layers": "2"}, "text encoder num_hidden_layers is '2', expected"),
            ("text_encoder", {"num_attention_heads": 0}, "text encoder num_attention_heads is 0, expected"),
            ("text_encoder", {"num_attention_heads": 5}, "num_attention_heads 5 does not divide hidden_size 32"),
            ("text_encoder", {"intermediate_size": 65536}, "text encoder weights and config do not match"),
            (None, {"pad_token_id": 5}, "padded with token 5; the host pads with 49407, as SD1.x, or with 0, as SD2.x"),
            (None, {"latent_rgb_factors": [[0, 0, 0]] * 3}, "latent_rgb_factors has 3 rows, expected 4"),
            (None, {"latent_rgb_factors": []}, "latent_rgb_factors has 0 rows, expected 4"),
            ("unet", {"norm_num_groups": 16}, "no UNet with these settings: norm_num_groups is 16, expected 32"),
            ("unet", {"only_cross_attention": True, "freq_shift": 1}, "freq_shift is 1, expected 0; only_cross_at"),
            ("unet", {"down_block_types": ["K", "DownBlock2D"]}, "no UNet with down block 'K'"),
            ("unet", {"block_out_channels": [32, 48]}, r"\[32, 48\]: the host needs multiples of the first"),
            ("unet", {"cross_attention_dim": 48}, "the text encoder is 32 wide, the UNet's cross-attention takes 48"),
            ("vae", {"latent_channels": 8}, "the VAE has 8 latent channels, the UNet takes 4"),
            ("vae", {"use_quant_conv": False}, "no VAE with these settings: use_quant_conv"),
            ("text_encoder", {"hidden_act": "relu"}, "no text encoder with these settings: hidden_act is 'relu'"),
            ("text_encoder", {"max_position_embeddings": 64}, "max_position_embeddings is 64, expected 77"),
            (None, {"unet": {}}, "its config lacks 'block_out_channels'"),
            (None, {"schedule": {"num_train_timesteps": 500}}, "starts at timestep 999, the schedule has 500"),
        ],
    )  # fmt: skip
    def test_configs_that_the_host_cannot_build(self, good, part, changes, message):
        self.assert_refused(self.rewritten(good, self.changed_config(part, **changes)), message)

    def test_a_config_costs_no_memory_before_it_is_compared(self, good, monkeypatch):
        """The network that this one claims would take more than the machine has."""
        built = []
        monkeypatch.setattr("comfy.model_base.BaseModel.__init__", lambda *_, **__: built.append("model"))
        path = self.rewritten(good, self.changed_config("unet", block_out_channels=[65536, 65536]))
        self.assert_refused(path, "weights and config do not match")
        assert not built

    @pytest.mark.parametrize("kind", [TypeError, ZeroDivisionError, IndexError, AttributeError])
    def test_whatever_else_a_config_makes_the_host_raise_names_the_file(self, good, kind, monkeypatch):
        def fail(*_):
            raise kind("of no use")

        monkeypatch.setattr("snoopi_core.host.loader.build_vae", fail)
        self.assert_refused(good, rf"cannot use its config \({kind.__name__}: of no use\)")

    @pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError, MemoryError])
    def test_what_the_machine_lacks_is_not_laid_on_the_file(self, good, kind, monkeypatch):
        def fail(*_):
            raise kind("out of memory")

        monkeypatch.setattr("snoopi_core.host.loader.build_vae", fail)
        with pytest.raises(kind, match=r"^out of memory$"):
            load_checkpoint(good)

    def test_a_file_cut_short(self, good):
        path = good.with_name("cut.safetensors")
        path.write_bytes(good.read_bytes()[:-100])
        self.assert_refused(path, "is damaged or cut short")

    def test_a_foreign_file(self, good):
        path = good.with_name("foreign.safetensors")
        save_file({"weight": torch.zeros(2)}, path)
        self.assert_refused(path, "not one made by .*Load Checkpoint node")

    def test_a_pickle_with_a_wrong_name(self, good):
        path = good.with_name("pickle.safetensors")
        torch.save({"weight": torch.zeros(2)}, path)
        self.assert_refused(path, "is a pickle .* so it was not opened")

    def test_a_newer_file(self, good):
        path = self.rewritten(good, lambda tensors, header: header.update({"snoopi.format": "2"}))
        self.assert_refused(path, "has format 2, this version of SNOOPI reads up to 1; update SNOOPI")
