"""PG-SB Loader: a student's LoRA on a base model equals the merged weights."""

from __future__ import annotations

import copy

import nodes as host_nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from effort import some
from exports import RECIPE, export, pixart_export
from figures import measured
from full_size import PIXARTS, diffusers_weights, meta_network, write_sparse
from loras import ALPHA, STYLES, adapter_settings, kohya, lora_metadata, renamed, with_adapters
from reference import relative_error
from safetensors.torch import save_file
from small_models import unet_file

from snoopi_core.formats.checkpoint import OneStepRecipe, Schedule
from snoopi_core.formats.lora import adapters_from_peft, write_lora
from snoopi_core.formats.tensor_file import open_tensor_file
from snoopi_core.host.loading.attachment import get_metadata
from snoopi_core.host.loading.lora import apply_lora
from snoopi_core.host.loading.recognise import recognise
from snoopi_core.host.one_step import one_step

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def base(folder):
    """The bundled kind of model, in the checkpoints folder, and its UNet in diffusers."""
    return export(folder / "base.safetensors").network


@torch.no_grad()
def changed(model):
    """The host's network with the patches applied, as during sampling."""
    model.patch_model()
    try:
        return copy.deepcopy(model.model.diffusion_model)
    finally:
        model.unpatch_model()


@torch.no_grad()
def error_against(model, unet, width=32):
    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([500, 500]), torch.randn(2, 77, width)
    got = changed(model)(x, t, context=context)
    return relative_error(got, unet(x, t, encoder_hidden_states=context).sample)


@pytest.mark.both_hosts
class TestOnOurBase:
    @pytest.mark.parametrize("style", STYLES)
    def test_key_styles(self, base, loras, loader, style):
        merged, weights = with_adapters(base)
        tensors, header = STYLES[style](weights)
        save_file(tensors, loras / "style.safetensors", metadata=header)
        model = loader.execute("base.safetensors", "style.safetensors").result[0]
        measured("loader", "LoRA on our export", f"relative error, {style} names", error_against(model, merged), 2e-6)

    def test_our_own_lora(self, base, loras, loader, caplog):
        merged, weights = with_adapters(base)
        write_lora(loras / "ours.safetensors", lora_metadata(), adapters_from_peft(weights), alpha=ALPHA)
        with caplog.at_level("INFO"):
            model = loader.execute("base.safetensors", "ours.safetensors").result[0]
        measured("loader", "LoRA on our export", "relative error, our names", error_against(model, merged), 2e-6)
        assert (
            "ours.safetensors:" in caplog.text
            and "weights changed by 'student', timesteps 600, alpha 0.3" in caplog.text
        )

    def test_the_text_encoder_too(self, base, loras, loader):
        up, down = torch.randn(32, 2), torch.randn(2, 32)
        name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
        save_file({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, loras / "text.safetensors")
        model, plain, _ = loader.execute("base.safetensors").result
        clip = loader.execute("base.safetensors", "text.safetensors").result[1]
        stock = host_nodes.LoraLoader().load_lora(model, plain, "text.safetensors", 1.0, 1.0)[1]

        def encoded(clip):
            return clip.encode_from_tokens_scheduled(clip.tokenize("a red ring"))[0][0]

        assert relative_error(encoded(clip), encoded(plain)) > 0.01
        error = relative_error(encoded(clip), encoded(stock))
        measured("loader", "LoRA on our export", "text encoder, against Load LoRA", error, 0.0)


def recipe_of(model):
    """The node's classes are the pack's copies of those imported here."""
    return OneStepRecipe(**get_metadata(model).recipe.model_dump())


class TestTheRecipe:
    def test_the_loras_recipe_overrides_the_bases(self, base, loras, loader):
        _, weights = with_adapters(base)
        schedule = Schedule(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
        metadata = lora_metadata(prediction_type="v_prediction", schedule=schedule)
        write_lora(loras / "wins.safetensors", metadata, adapters_from_peft(weights), alpha=ALPHA)
        model = loader.execute("base.safetensors", "wins.safetensors").result[0]
        got = get_metadata(model.clone())
        assert got.model_dump() == metadata.model_dump() and got.recipe.timesteps == (600,)
        sampling = model.get_model_object("model_sampling")
        betas = torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)
        bars = (1 - betas).cumprod(0)
        expected = ((1 - bars) / bars).sqrt()
        expected[600] = 0.8 / 0.6
        assert relative_error(sampling.sigmas, expected) < 1e-5
        # The base itself is unchanged.
        assert recipe_of(loader.execute("base.safetensors").result[0]) == RECIPE

    @torch.no_grad()
    def test_the_loras_recipe_is_used_for_sampling(self, base, loras, loader):
        merged, weights = with_adapters(base)
        write_lora(loras / "sampled.safetensors", lora_metadata(), adapters_from_peft(weights), alpha=ALPHA)
        model = loader.execute("base.safetensors", "sampled.safetensors").result[0]
        context = torch.randn(1, 77, 32)
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        x0 = one_step(model, [[context, {}]], latent, seed=3, timesteps="auto")["samples"] * 0.7
        z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        eps = merged(z, 600, encoder_hidden_states=context).sample
        assert relative_error(x0, (z - 0.8 * eps) / 0.6) < 1e-5

    def test_on_a_foreign_base(self, folder, loras, loader):
        """A base without metadata, so only the LoRA's recipe is used."""
        unet = unet_file(folder / "others.safetensors")
        merged, weights = with_adapters(unet)
        write_lora(loras / "ours.safetensors", lora_metadata(), adapters_from_peft(weights), alpha=ALPHA)
        model = loader.execute("others.safetensors", "ours.safetensors").result[0]
        error = error_against(model, merged, width=768)
        measured("loader", "LoRA on a single file", "relative error, our names", error, 2e-6)
        assert get_metadata(model).recipe.timesteps == (600,)

    def test_a_foreign_lora_keeps_the_bases_recipe(self, base, loras, loader, caplog):
        save_file(kohya(with_adapters(base)[1]), loras / "other.safetensors")
        with caplog.at_level("INFO"):
            model = loader.execute("base.safetensors", "other.safetensors").result[0]
        assert recipe_of(model) == RECIPE
        assert "the LoRA contains no recipe, so the base model's is used" in caplog.text

    def test_nothing_chosen_changes_nothing(self, base, loader):
        model = loader.execute("base.safetensors", "none").result[0]
        assert not model.patches and recipe_of(model) == RECIPE

    def test_a_new_file_of_the_same_name_is_detected(self, base, loras, loader):
        save_file({"a": torch.zeros(1)}, loras / "again.safetensors")
        before = loader.fingerprint_inputs("base.safetensors", "again.safetensors")
        save_file({"a": torch.zeros(2)}, loras / "again.safetensors")
        assert loader.fingerprint_inputs("base.safetensors", "again.safetensors") != before


class TestPixArt:
    @pytest.mark.parametrize("style", ["ours", "transformer.", "base_model.model.", "lora_unet_blocks"])
    @torch.no_grad()
    def test_parts_of_fused_weights(self, folder, loras, loader, style):
        """Queries, keys and values are one weight in the host."""
        transformer = pixart_export(folder / "pixart-base.safetensors")
        merged, weights = with_adapters(transformer)
        path = loras / "pixart.safetensors"
        if style == "ours":
            write_lora(path, lora_metadata(family="pixart"), adapters_from_peft(weights), alpha=ALPHA)
        elif style == "lora_unet_blocks":
            weights = {k: v for k, v in weights.items() if ".attn1.to_out" in k or ".attn2.to_q" in k}
            merged, weights = with_adapters(transformer, r".*(attn1\.to_out\.0|attn2\.to_q)")
            names = {"transformer_blocks": "blocks", "attn1_to_out_0": "attn_proj", "attn2_to_q": "cross_attn_q_linear"}
            tensors = kohya(weights)
            for old, new in names.items():
                tensors = {key.replace(old, new): weight for key, weight in tensors.items()}
            save_file(tensors, path)
        else:
            save_file(renamed(weights, style), path, metadata={"lora_adapter_metadata": adapter_settings(style)})
        model = loader.execute("pixart-base.safetensors", "pixart.safetensors").result[0]
        x, t, context = torch.randn(1, 4, 64, 64), torch.tensor([400]), torch.randn(1, 9, 16)
        sizes = {"resolution": None, "aspect_ratio": None}
        got = changed(model)(x, t, context=context)
        expected = merged(x, context, t, added_cond_kwargs=sizes).sample[:, :4]
        measured("loader", "LoRA on our PixArt", f"relative error, {style} names", relative_error(got, expected), 2e-6)


def lora_of(name):
    """Rank 1 on every attention of a full-size network, as the trainer would write it; only names and shapes."""
    adapters = {}
    for key, module in meta_network(name).named_modules():
        if isinstance(module, torch.nn.Linear) and key.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v"):
            adapters[key] = (torch.zeros(1, module.in_features), torch.zeros(module.out_features, 1))
    return adapters


def meta_patcher(path, name):
    """The host's model of a full-size network, without memory."""
    found = recognise(open_tensor_file(write_sparse(path, diffusers_weights(name))))
    found.config.set_inference_dtype(torch.float16, None)
    model = found.config.get_model(found.network, "", device=torch.device("meta"))
    return ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


@pytest.mark.parametrize("name", some(["SD1.5", "SD2.1", "PixArt-alpha 512", "SDXL"], 2))
def test_full_size_key_sets(tmp_path, name):
    adapters = lora_of(name)
    family = "pixart" if name in PIXARTS else "unet"
    path = write_lora(tmp_path / "lora.safetensors", lora_metadata(family=family), adapters, alpha=2.0)
    model, _ = apply_lora(path, meta_patcher(tmp_path / "base.safetensors", name), None)
    changes = sum(len(patches) for patches in model.patches.values())
    row = "PixArt" if name in PIXARTS else name
    measured("loader", f"{row} LoRA", "wrong keys", abs(changes - len(adapters)), 0)
