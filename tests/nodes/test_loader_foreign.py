"""PG-SB Loader: models of other makers, recognised by the host, compute what diffusers does on the same weights."""

from __future__ import annotations

import functools

import pytest
import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel
from exports import assert_refused, rewritten
from figures import measured
from full_size import diffusers_weights, single_file_weights, write_sparse
from reference import relative_error
from safetensors.torch import save_file

from snoopi_core.host.attachment import get_metadata
from snoopi_core.host.foreign import converted_text, foreign_vae, recognise
from snoopi_core.layouts import pixart_to_single_file, to_single_file, unet_rename, vae_rename
from snoopi_core.tensor_file import open_tensor_file

pytestmark = pytest.mark.host

PREFIX = "model.diffusion_model."
BLOCK, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
# The smallest networks that the host takes for these families: their widths, fewer levels.
SMALL = {
    "SD1.5": {"cross_attention_dim": 768, "attention_head_dim": 8, "layers_per_block": 1},
    "SD2.1": {
        "cross_attention_dim": 1024, "attention_head_dim": 5, "layers_per_block": 1, "use_linear_projection": True,
    },
    "SDXL": {
        "cross_attention_dim": 2048, "attention_head_dim": 5, "layers_per_block": 2, "use_linear_projection": True,
        "transformer_layers_per_block": (1, 1, 2), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
PIXART = {"num_layers": 1, "caption_channels": 4096, "sample_size": 64}
NO_SIZES = {"resolution": None, "aspect_ratio": None}


def seeded(build, **config):
    """A network with random weights, none of them zero or one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(**config).eval().requires_grad_(False)
        for weight in network.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return network


@functools.lru_cache(maxsize=1)  # SDXL's has 1 GB
def small_unet(name):
    levels = {"block_out_channels": (320,), "down_block_types": (BLOCK,), "up_block_types": (UP,)}
    if name == "SDXL":  # Vega's depths
        levels = {
            "block_out_channels": (320,) * 3,
            "down_block_types": ("DownBlock2D", BLOCK, BLOCK),
            "up_block_types": (UP, UP, "UpBlock2D"),
        }
    return seeded(UNet2DConditionModel, **levels, **SMALL[name])


@functools.cache
def small_pixart(conditions):
    return seeded(PixArtTransformer2DModel, **PIXART, use_additional_conditions=conditions)


def named(weights):
    return {PREFIX + key: weight.contiguous() for key, weight in weights.items()}


def unet_file(path, name="SD1.5", **more):
    unet = small_unet(name)
    save_file({**named(to_single_file(unet.state_dict(), unet_rename(unet.config))), **more}, path)
    return unet


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

    @pytest.mark.parametrize("layout", ["single file", "diffusers layout"])
    @pytest.mark.parametrize("conditions", [False, True])
    @torch.no_grad()
    def test_pixart(self, folder, loader, layout, conditions):
        transformer = small_pixart(conditions)
        weights = transformer.state_dict()
        if layout == "single file":
            weights = named(pixart_to_single_file(weights))
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


class TestWhatIsSaid:
    def test_a_foreign_model_has_no_metadata_and_the_log_says_what_was_taken(self, folder, loader, caplog):
        unet_file(folder / "plain.safetensors")
        with caplog.at_level("INFO"):
            model, clip, _ = loader.execute("plain.safetensors").result
        assert get_metadata(model) is None and clip is None
        assert "plain.safetensors: recognised as SD15 (single file), EPS prediction, no recipe" in caplog.text
        assert "plain.safetensors holds no text encoder and no VAE" in caplog.text

    def test_harmless_keys_are_said_once(self, folder, loader, caplog):
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
        assert len(lines) == 1 and "5 known harmless key(s) left out: alphas_cumprod; betas; cond_stage" in lines[0]

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

    def test_missing_keys_are_counted_and_the_first_five_named(self, folder):
        def change(tensors, header):
            for key in [key for key in tensors if ".attn2." in key]:
                del tensors[key]

        unet_file(folder / "whole.safetensors")
        path = rewritten(folder / "whole.safetensors", change)
        assert_refused(path, r"(missing .*; ){4}missing .*; and \d+ more|cannot be recognised|none that the host knows")

        def drop(tensors, header):
            for key in [key for key in tensors if ".norm3." in key]:
                del tensors[key]

        path = rewritten(folder / "whole.safetensors", drop)
        assert_refused(path, r"UNet weights and config do not match: (missing \S+norm3.\w+; ){5}and 3 more")

    @pytest.mark.parametrize(
        ("gone", "said"),
        [
            ("transformer_blocks.0.attn1.to_k.weight", r"blocks.0.attn.qkv.weight \(part 2 of 3\)"),
            ("transformer_blocks.0.attn2.to_v.bias", r"blocks.0.cross_attn.kv_linear.bias \(part 2 of 2\)"),
            ("proj_out.bias", "missing final_layer.linear.bias"),
        ],
    )
    def test_what_the_hosts_conversion_would_leave_as_memory_was(self, folder, gone, said):
        weights = dict(small_pixart(False).state_dict())
        del weights[gone]
        save_file(weights, folder / "hole.safetensors")
        assert_refused(folder / "hole.safetensors", said)

    def test_what_the_hosts_conversion_would_stretch(self, folder):
        weights = dict(small_pixart(False).state_dict())
        weights["transformer_blocks.0.attn1.to_k.weight"] = torch.zeros(1, 1152)
        save_file(weights, folder / "stretched.safetensors")
        assert_refused(folder / "stretched.safetensors", "differ in shape, first of blocks.0.attn.qkv.weight")

    def test_other_networks_are_refused_by_name(self, folder):
        save_file({"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(2)}, folder / "flux.safetensors")
        assert_refused(folder / "flux.safetensors", "none that the host knows.*double_blocks.*opens SD1.x, SD2.x, SDXL")


def usual_schedule():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class TestPredictionAndSchedule:
    def test_a_schedule_in_the_file_is_used(self, folder, loader, caplog):
        """Down to alpha_T^2 = 0, whose noise level the host writes as a very large one."""
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

    @pytest.mark.parametrize("bars", [torch.ones(2, 3), torch.arange(5.0), torch.tensor([0.9, float("nan")])])
    def test_schedules_that_are_none(self, folder, bars):
        unet_file(folder / "bad.safetensors", alphas_cumprod=bars)
        assert_refused(folder / "bad.safetensors", "its alphas_cumprod (is|do not fall)")

    @pytest.mark.parametrize(("name", "kind"), [("SD1.5", "V_PREDICTION"), ("SDXL", "V_PREDICTION")])
    def test_the_mark_of_v_prediction(self, folder, loader, caplog, name, kind):
        unet_file(folder / "v.safetensors", name, v_pred=torch.zeros(0))
        with caplog.at_level("INFO"):
            model = loader.execute("v.safetensors").result[0]
        assert model.model.model_type.name == kind and f"{kind} prediction" in caplog.text

    @pytest.mark.parametrize(("spread", "kind"), [(0.2, "V_PREDICTION"), (0.01, "EPS")])
    def test_sd2_by_the_hosts_rule(self, tmp_path, spread, kind):
        """Which looks at how far one bias of the full-size network spreads."""
        key = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
        weights = single_file_weights("SD2.1")
        weights[key] = (spread * torch.randn(320)).half()
        found = recognise(open_tensor_file(write_sparse(tmp_path / "sd2.safetensors", named_meta(weights))))
        assert found.config.model_type(found.network, "").name == kind


def named_meta(weights):
    return {PREFIX + key: weight for key, weight in weights.items()}


class TestPixArtsLatents:
    def scale(self, loader, name, **settings):
        return loader.execute(name, **settings).result[0].model.latent_format.scale_factor

    def test_alpha_512_and_sigma_have_the_same_keys(self, folder, loader, caplog):
        save_file(small_pixart(False).state_dict(), folder / "guess.safetensors")
        assert self.scale(loader, "guess.safetensors") == 0.13025
        assert "taken as PixArt-sigma" in caplog.text and "set PG-SB Loader's `latents` to SD1.x" in caplog.text
        caplog.clear()
        assert self.scale(loader, "guess.safetensors", latents="SD1.x") == 0.18215
        assert "taken as" not in caplog.text

    @pytest.mark.parametrize(("tokens", "expected"), [(120, 0.18215), (300, 0.13025)])
    def test_a_caption_table_tells(self, folder, loader, caplog, tokens, expected):
        weights = named(pixart_to_single_file(small_pixart(False).state_dict()))
        weights[PREFIX + "y_embedder.y_embedding"] = torch.zeros(tokens, 4096)
        weights[PREFIX + "pos_embed"] = torch.zeros(1, 1024, 1152)
        save_file(weights, folder / "told.safetensors")
        with caplog.at_level("INFO"):
            assert self.scale(loader, "told.safetensors") == expected
        assert "taken as" not in caplog.text and "left out: model.diffusion_model.pos_embed" in caplog.text

    def test_size_conditions_tell(self, folder, loader):
        save_file(small_pixart(True).state_dict(), folder / "alpha.safetensors")
        assert self.scale(loader, "alpha.safetensors") == 0.18215


def clip_weights(prefix, layers, width, dot=""):
    """Keys and shapes of a CLIP text encoder, as transformers names them."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(num_hidden_layers=layers, hidden_size=width, intermediate_size=4 * width)
    with torch.device("meta"):
        names = CLIPTextModel(config).state_dict()
    return {f"{prefix}text_model.{key.removeprefix('text_model.')}": weight for key, weight in names.items()}


def open_clip_weights(prefix, layers, width):
    """Keys and shapes of an OpenCLIP text encoder."""
    meta = functools.partial(torch.empty, device="meta")
    out = {
        "positional_embedding": meta(77, width), "token_embedding.weight": meta(49408, width),
        "ln_final.weight": meta(width), "ln_final.bias": meta(width), "text_projection": meta(width, width),
        "logit_scale": meta(()),
    }  # fmt: skip
    block = {
        "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
        "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,),
    }  # fmt: skip
    for layer in range(layers):
        out |= {f"transformer.resblocks.{layer}.{key}": meta(*shape) for key, shape in block.items()}
    return {prefix + key: weight for key, weight in out.items()}


@functools.cache
def vae_weights():
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4,
        )  # fmt: skip
    single = to_single_file(vae.state_dict(), vae_rename(vae.config))
    return {f"first_stage_model.{key}": weight for key, weight in single.items()}


TEXT = {
    "SD1.5": lambda: clip_weights("cond_stage_model.transformer.", 12, 768),
    "SD2.1": lambda: open_clip_weights("cond_stage_model.model.", 24, 1024),
    "SDXL": lambda: (
        clip_weights("conditioner.embedders.0.transformer.", 12, 768)
        | open_clip_weights("conditioner.embedders.1.model.", 32, 1280)
    ),
    "SDXL refiner": lambda: open_clip_weights("conditioner.embedders.0.model.", 32, 1280),
}


class TestWholeSingleFiles:
    """Network, text encoders and VAE at full size, from a sparse file."""

    @pytest.mark.parametrize("name", TEXT)
    def test_every_key_of_the_text_encoders_has_its_place(self, tmp_path, name):
        weights = named_meta(single_file_weights(name)) | TEXT[name]() | vae_weights()
        found = recognise(open_tensor_file(write_sparse(tmp_path / "whole.safetensors", weights)))
        _, text = converted_text(found)
        width = {"SD1.5": "clip_l", "SD2.1": "clip_h"}.get(name, "clip_g")
        assert f"{width}.transformer.text_model.final_layer_norm.weight" in text
        assert len(found.vae) == len(vae_weights())

    @pytest.mark.parametrize("name", TEXT)
    def test_and_none_is_ignored(self, tmp_path, name):
        text = TEXT[name]()
        gone = next(key for key in text if "layers.3" in key or "resblocks.3." in key)
        prefix = gone.partition("transformer.")[0]
        del text[gone]
        text[f"{prefix}transformer.stranger.weight"] = torch.empty(3, device="meta")
        weights = named_meta(single_file_weights(name)) | text
        found = recognise(open_tensor_file(write_sparse(tmp_path / "odd.safetensors", weights)))
        with pytest.raises(ValueError, match=r"text encoder weights and config do not match: missing .*stranger"):
            converted_text(found)

    def test_the_vae_and_the_text_encoder_of_a_small_file(self, folder, loader, caplog):
        """The network small, the other parts at their only size: the host opens them and they work."""
        text = {
            key: torch.zeros_like(weight, device="cpu", dtype=torch.float16) for key, weight in TEXT["SD1.5"]().items()
        }
        vae = {
            key: 0.01 * torch.ones_like(weight, device="cpu", dtype=torch.float16)
            for key, weight in vae_weights().items()
        }
        unet_file(folder / "all.safetensors", **text, **vae)
        _, clip, opened = loader.execute("all.safetensors").result
        assert "holds no" not in caplog.text
        tokens = clip.tokenize("a ring")
        assert clip.encode_from_tokens_scheduled(tokens)[0][0].shape == (1, 77, 768)
        assert opened.decode(torch.zeros(1, 4, 8, 8)).shape == (1, 64, 64, 3)
        for patcher in (clip.patcher, opened.patcher):
            again = patcher.cached_patcher_init[0](*patcher.cached_patcher_init[1])
            assert again.model_state_dict().keys() == patcher.model_state_dict().keys()

    def test_a_vae_that_is_not_whole(self, tmp_path):
        vae = vae_weights()
        del vae["first_stage_model.decoder.conv_in.bias"]
        weights = named_meta(single_file_weights("SD1.5")) | vae
        found = recognise(open_tensor_file(write_sparse(tmp_path / "odd.safetensors", weights)))
        with pytest.raises(ValueError, match=r"VAE weights and config do not match: missing decoder.conv_in.bias"):
            foreign_vae(found)


class TestAbsurdShapes:
    """Sparse files, as long as their headers say; all that is looked at is shapes."""

    def test_terabytes(self, tmp_path):
        shapes = {key: (1000, *weight.shape) for key, weight in diffusers_weights("SD1.5").items()}
        weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        path = write_sparse(tmp_path / "huge.safetensors", weights)
        assert_refused(path, r"cannot be opened .*model of that size\?|recognised|none that the host knows")

    @pytest.mark.parametrize(
        ("name", "key"),
        [("SD1.5", "mid_block.resnets.0.conv1.weight"), ("PixArt-alpha 512", "transformer_blocks.3.attn1.to_q.weight")],
    )
    def test_gigabytes(self, tmp_path, name, key):
        weights = diffusers_weights(name)
        weights[key] = torch.empty(10**6, 1152, device="meta")
        path = write_sparse(tmp_path / "large.safetensors", weights)
        assert_refused(path, r"has shape \(1000000, 1152\)|differ in shape, first of blocks.3.attn.qkv")

    def test_a_caption_table_of_gigabytes(self, tmp_path):
        weights = named_meta(single_file_weights("PixArt-alpha 512"))
        weights[PREFIX + "y_embedder.y_embedding"] = torch.empty(10**6, 4096, device="meta")
        path = write_sparse(tmp_path / "table.safetensors", weights)
        assert_refused(path, "it takes prompts of 1000000 tokens, expected at most 4096")

    def test_blocks_without_end(self, tmp_path):
        """The host counts them by looking through all keys once for each."""
        weights = {f"input_blocks.{n}.0.op.weight": torch.empty(1, device="meta") for n in range(4000)}
        weights["input_blocks.0.0.weight"] = torch.empty(320, 4, 3, 3, device="meta")
        path = write_sparse(tmp_path / "many.safetensors", weights)
        assert_refused(path, r"network has a block of number \d+ in input_blocks.\d+.0.op.weight, expected at most 200")

    def test_tensors_without_end(self, tmp_path):
        weights = {f"input_blocks.0.0.weight{n}": torch.empty(1, device="meta") for n in range(6000)}
        path = write_sparse(tmp_path / "many.safetensors", weights)
        assert_refused(path, "its network has 6000 tensors, expected at most 5000")
