"""PG-SB Loader: whole single files at full size, text encoders and VAE too, and sizes that no model has."""

from __future__ import annotations

import gc

import pytest
import torch
from exports import assert_refused
from full_size import diffusers_weights, single_file_weights, write_sparse
from full_size_parts import PREFIX, TEXT, prefixed, vae_weights
from small_models import unet_file

from snoopi_core.formats.tensor_file import open_tensor_file
from snoopi_core.host.loading.foreign import convert_text, foreign_vae
from snoopi_core.host.loading.recognise import recognise

pytestmark = pytest.mark.host


class TestWholeSingleFiles:
    """Network, text encoders and VAE at full size, from a sparse file."""

    @pytest.mark.parametrize("name", TEXT)
    def test_every_key_of_the_text_encoders_has_its_place(self, tmp_path, name):
        weights = prefixed(single_file_weights(name)) | TEXT[name]() | vae_weights()
        found = recognise(open_tensor_file(write_sparse(tmp_path / "whole.safetensors", weights)))
        _, text = convert_text(found)
        width = {"SD1.5": "clip_l", "SD2.1": "clip_h"}.get(name, "clip_g")
        assert f"{width}.transformer.text_model.final_layer_norm.weight" in text
        assert len(found.vae) == len(vae_weights())

    @pytest.mark.parametrize("name", TEXT)
    def test_no_key_of_the_text_encoders_is_ignored(self, tmp_path, name):
        text = TEXT[name]()
        gone = next(key for key in text if "layers.3" in key or "resblocks.3." in key)
        prefix = gone.partition("transformer.")[0]
        del text[gone]
        text[f"{prefix}transformer.stranger.weight"] = torch.empty(3, device="meta")
        weights = prefixed(single_file_weights(name)) | text
        found = recognise(open_tensor_file(write_sparse(tmp_path / "odd.safetensors", weights)))
        with pytest.raises(ValueError, match=r"text encoder weights and config do not match: missing .*stranger"):
            convert_text(found)

    @pytest.mark.both_hosts
    def test_the_vae_and_the_text_encoder_of_a_small_file(self, folder, loader, caplog):
        """A small network, the other parts at their only size: the host opens them and they work."""
        gc.collect()
        text = {
            key: torch.zeros_like(weight, device="cpu", dtype=torch.float16) for key, weight in TEXT["SD1.5"]().items()
        }
        vae = {
            key: 0.01 * torch.ones_like(weight, device="cpu", dtype=torch.float16)
            for key, weight in vae_weights().items()
        }
        unet_file(folder / "all.safetensors", **text, **vae)
        _, clip, opened = loader.execute("all.safetensors").result
        assert "contains no" not in caplog.text
        tokens = clip.tokenize("a ring")
        assert clip.encode_from_tokens_scheduled(tokens)[0][0].shape == (1, 77, 768)
        assert opened.decode(torch.zeros(1, 4, 8, 8)).shape == (1, 64, 64, 3)
        for patcher in (clip.patcher, opened.patcher):
            again = patcher.cached_patcher_init[0](*patcher.cached_patcher_init[1])
            assert again.model_state_dict().keys() == patcher.model_state_dict().keys()

    def test_an_incomplete_vae(self, tmp_path):
        vae = vae_weights()
        del vae["first_stage_model.decoder.conv_in.bias"]
        weights = prefixed(single_file_weights("SD1.5")) | vae
        found = recognise(open_tensor_file(write_sparse(tmp_path / "odd.safetensors", weights)))
        with pytest.raises(ValueError, match=r"VAE weights and config do not match: missing decoder.conv_in.bias"):
            foreign_vae(found)


class TestAbsurdShapes:
    """Sparse files of the size in their headers; only shapes are read."""

    def test_terabytes(self, tmp_path):
        shapes = {key: (1000, *weight.shape) for key, weight in diffusers_weights("SD1.5").items()}
        weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        path = write_sparse(tmp_path / "huge.safetensors", weights)
        assert_refused(path, r"cannot be opened .*model of that size\?|recognised|ComfyUI recognises no network")

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
        weights = prefixed(single_file_weights("PixArt-alpha 512"))
        weights[PREFIX + "y_embedder.y_embedding"] = torch.empty(10**6, 4096, device="meta")
        path = write_sparse(tmp_path / "table.safetensors", weights)
        assert_refused(path, "it takes prompts of 1000000 tokens, expected at most 4096")

    def test_huge_numbers_of_blocks(self, tmp_path):
        """The host counts blocks by searching all keys once per block."""
        weights = {f"input_blocks.{n}.0.op.weight": torch.empty(1, device="meta") for n in range(4000)}
        weights["input_blocks.0.0.weight"] = torch.empty(320, 4, 3, 3, device="meta")
        path = write_sparse(tmp_path / "many.safetensors", weights)
        assert_refused(path, r"network has a block of number \d+ in input_blocks.\d+.0.op.weight, expected at most 200")

    def test_huge_numbers_of_tensors(self, tmp_path):
        weights = {f"input_blocks.0.0.weight{n}": torch.empty(1, device="meta") for n in range(6000)}
        path = write_sparse(tmp_path / "many.safetensors", weights)
        assert_refused(path, "its network has 6000 tensors, expected at most 5000")
