"""PG-SB Loader: unusable files are refused with a one-sentence message."""

from __future__ import annotations

import pytest
import torch
from exports import assert_refused, changed_config, export, rewritten
from safetensors.torch import save_file

from snoopi_core.formats.checkpoint import PREFIXES
from snoopi_core.host.loading.loader import load_checkpoint

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def good(folder):
    export(folder / "good.safetensors")
    return folder / "good.safetensors"


class TestExports:
    def test_missing_weights(self, good):
        def change(tensors, header):
            for key in [key for key in tensors if "time_embed" in key]:
                del tensors[key]

        assert_refused(rewritten(good, change), "UNet weights and config do not match: missing time_embed.0.weight")

    def test_unexpected_weights(self, good):
        def change(tensors, header):
            tensors[PREFIXES["vae"] + "decoder.extra.weight"] = torch.zeros(1)

        assert_refused(rewritten(good, change), "VAE weights.*not expected decoder.extra.weight")

    def test_weights_of_another_size(self, good):
        def change(tensors, header):
            tensors[PREFIXES["text_encoder"] + "text_model.final_layer_norm.weight"] = torch.zeros(33)

        assert_refused(rewritten(good, change), r"text encoder weights.*has shape \(33,\), expected \(32,\)")

    @pytest.mark.parametrize(
        ("part", "changes", "message"),
        [
            ("unet", {"block_out_channels": 32}, "UNet block_out_channels is 32, expected a list of 1 to 16 whole"),
            ("unet", {"block_out_channels": [0, 0]}, r"UNet block_out_channels is \[0, 0\], expected a list"),
            ("unet", {"block_out_channels": []}, r"UNet block_out_channels is \[\], expected a list"),
            ("unet", {"block_out_channels": [10**6] * 2}, r"is \[1000000, 1000000\], expected .* to 65536"),
            ("unet", {"block_out_channels": [65536] * 2}, r"weights and config do not match: .* \(32, 4, 3, 3\), exp"),
            ("unet", {"block_out_channels": [16, 32]}, "ComfyUI cannot build this UNet config .*num_channels"),
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
            ("unet", {"in_channels": 8}, "UNet out_channels is 4, expected 8, like in_channels"),
            ("unet", {"cross_attention_dim": [32, 32]}, r"UNet cross_attention_dim is \[32, 32\], expected"),
            ("unet", {"use_linear_projection": "no"}, "UNet use_linear_projection is 'no', expected true or false"),
            ("unet", {"addition_embed_type": "text_time"}, "addition_time_embed_dim is None, expected a whole number"),
            (
                "unet",
                {"addition_embed_type": "text_time", "addition_time_embed_dim": 8},
                "ComfyUI has no UNet with addition_time_embed_dim 8, only 256",
            ),
            ("vae", {"block_out_channels": "32"}, "VAE block_out_channels is '32', expected a list"),
            ("vae", {"block_out_channels": [65536] * 4}, "VAE weights and config do not match"),
            ("vae", {"layers_per_block": [1, 1]}, r"VAE layers_per_block is \[1, 1\], expected a whole number"),
            ("vae", {"layers_per_block": 1000}, "VAE weights and config do not match: 1000 layers"),
            ("text_encoder", {"num_hidden_layers": "2"}, "text encoder num_hidden_layers is '2', expected"),
            ("text_encoder", {"num_attention_heads": 0}, "text encoder num_attention_heads is 0, expected"),
            ("text_encoder", {"num_attention_heads": 5}, "num_attention_heads 5 does not divide hidden_size 32"),
            ("text_encoder", {"intermediate_size": 65536}, "text encoder weights and config do not match"),
            (None, {"pad_token_id": 5}, "padded with token 5, expected 49407 .SD1.x. or 0 .SD2.x."),
            (None, {"latent_rgb_factors": [[0, 0, 0]] * 3}, "latent_rgb_factors has 3 rows, expected 4"),
            (None, {"latent_rgb_factors": []}, "latent_rgb_factors has 0 rows, expected 4"),
            ("unet", {"norm_num_groups": 16}, "no UNet with these settings: norm_num_groups is 16, expected 32"),
            ("unet", {"only_cross_attention": True, "freq_shift": 1}, "freq_shift is 1, expected 0; only_cross_at"),
            ("unet", {"down_block_types": ["K", "DownBlock2D"]}, "no UNet with down block 'K'"),
            ("unet", {"block_out_channels": [32, 48]}, r"\[32, 48\]: expected multiples of the first"),
            ("unet", {"cross_attention_dim": 48}, "the text encoder is 32 wide, the UNet's cross-attention expects 48"),
            ("vae", {"latent_channels": 8}, "the VAE has 8 latent channels, the UNet expects 4"),
            ("vae", {"use_quant_conv": False}, "no VAE with these settings: use_quant_conv"),
            ("text_encoder", {"hidden_act": "relu"}, "no text encoder with these settings: hidden_act is 'relu'"),
            ("text_encoder", {"max_position_embeddings": 64}, "max_position_embeddings is 64, expected 77"),
            (None, {"unet": {}}, "its config lacks 'block_out_channels'"),
            (None, {"schedule": {"num_train_timesteps": 500}}, "starts at timestep 999, the schedule has 500"),
        ],
    )  # fmt: skip
    def test_configs_that_the_host_cannot_build(self, good, part, changes, message):
        assert_refused(rewritten(good, changed_config(part, **changes)), message)

    def test_a_config_costs_no_memory_before_it_is_compared(self, good, monkeypatch):
        """The network in the config would need more memory than the machine has."""
        built = []
        monkeypatch.setattr("comfy.model_base.BaseModel.__init__", lambda *_, **__: built.append("model"))
        path = rewritten(good, changed_config("unet", block_out_channels=[65536, 65536]))
        assert_refused(path, "weights and config do not match")
        assert not built

    @pytest.mark.parametrize("kind", [TypeError, ZeroDivisionError, IndexError, AttributeError])
    def test_other_errors_of_the_host_name_the_file(self, good, kind, monkeypatch):
        def fail(*_):
            raise kind("of no use")

        monkeypatch.setattr("snoopi_core.host.loading.loader.build_vae", fail)
        assert_refused(good, rf"cannot use its config \({kind.__name__}: of no use\)")

    @pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError, MemoryError])
    def test_out_of_memory_is_not_blamed_on_the_file(self, good, kind, monkeypatch):
        def fail(*_):
            raise kind("out of memory")

        monkeypatch.setattr("snoopi_core.host.loading.loader.build_vae", fail)
        with pytest.raises(kind, match=r"^out of memory$"):
            load_checkpoint(good)

    def test_a_file_cut_short(self, good):
        path = good.with_name("cut.safetensors")
        path.write_bytes(good.read_bytes()[:-100])
        assert_refused(path, "is damaged or cut short")

    def test_a_foreign_file(self, good):
        path = good.with_name("foreign.safetensors")
        save_file({"weight": torch.zeros(2)}, path)
        assert_refused(path, "ComfyUI recognises no network.*first keys: weight.*Load Checkpoint node")

    @pytest.mark.parametrize(
        ("key", "words"),
        [
            ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "it is a LoRA .*choose it as lora_name"),
            ("encoder.conv_in.weight", "it is a VAE .*Load VAE node"),
        ],
    )
    def test_a_file_of_another_kind_names_the_right_loader(self, folder, key, words):
        path = folder / "misplaced.safetensors"
        save_file({key: torch.zeros(4, 4, 1, 1)}, path)
        assert_refused(path, words)

    def test_a_pickle_with_a_wrong_name(self, good):
        path = good.with_name("pickle.safetensors")
        torch.save({"weight": torch.zeros(2)}, path)
        assert_refused(path, "is a pickle .* so it was not opened")

    def test_a_newer_file(self, good):
        path = rewritten(good, lambda tensors, header: header.update({"snoopi.format": "2"}))
        assert_refused(path, "has format 2, this version of SNOOPI reads up to 1; update SNOOPI")
