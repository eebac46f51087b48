import json

import pytest
import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from tiny import tiny_backbone

from snoopi_core.formats.joined_layouts import from_joined_single_file, pixart_location, pixart_to_single_file
from snoopi_core.formats.layouts import from_single_file, to_single_file, unet_rename, vae_rename

SD15 = {
    "block_out_channels": (32, 64, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SDXL = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}
SMALL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "layers_per_block": 1,
}


@pytest.mark.parametrize("config", [SD15, SDXL, SMALL], ids=["sd15", "sdxl", "small"])
def test_unet_names_are_those_that_diffusers_reads(config):
    """The independent reference is diffusers' own converter, which goes the other way."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=32, attention_head_dim=2, **config)
    weights = {key: torch.full((1,), float(n)) for n, key in enumerate(unet.state_dict())}
    single = to_single_file(weights, unet_rename(unet.config))
    assert len(single) == len(weights)
    prefixed = {f"model.diffusion_model.{key}": weight for key, weight in single.items()}
    legacy = {**unet.config, "class_embed_type": None, "layers_per_block": unet.config.layers_per_block}
    assert convert_ldm_unet_checkpoint(prefixed, legacy) == weights


def test_vae_names_are_those_that_diffusers_reads():
    vae = tiny_backbone().vae
    single = to_single_file(vae.state_dict(), vae_rename(vae.config))
    assert single["encoder.mid.attn_1.q.weight"].ndim == 4, "attention is a 1x1 convolution in this layout"
    back = convert_ldm_vae_checkpoint(
        {f"first_stage_model.{k}": v for k, v in single.items()}, json.loads(vae.to_json_string())
    )
    assert back.keys() == vae.state_dict().keys()
    assert all(torch.equal(weight.squeeze(), vae.state_dict()[key].squeeze()) for key, weight in back.items())


def test_the_reverse_conversion_is_exact():
    unet = tiny_backbone().network
    rename = unet_rename(unet.config)
    back = from_single_file(to_single_file(unet.state_dict(), rename), unet.state_dict(), rename)
    assert all(torch.equal(back[key], weight) for key, weight in unet.state_dict().items())


def test_problems_are_counted_and_named():
    unet = tiny_backbone().network
    rename = unet_rename(unet.config)
    single = to_single_file(unet.state_dict(), rename)
    single["stranger"] = torch.zeros(1)
    del single["out.2.bias"]
    single["out.2.weight"] = torch.zeros(3)
    with pytest.raises(
        ValueError, match=r"3 place\(s\): missing out.2.bias; not expected stranger; out.2.weight has shape \(3,\)"
    ):
        from_single_file(single, unet.state_dict(), rename)
    with pytest.raises(ValueError, match="no equivalent in the single-file layout"):
        rename("unheard.of")


def pixart(**config):
    settings = {
        "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "cross_attention_dim": 24,
        "caption_channels": 16, "sample_size": 64, "use_additional_conditions": True,
    }  # fmt: skip
    return PixArtTransformer2DModel(**settings | config)


def test_pixart_conversion_and_back():
    weights = pixart().state_dict()
    single = pixart_to_single_file(weights)
    qkv = [weights[f"transformer_blocks.1.attn1.to_{part}.weight"] for part in "qkv"]
    assert torch.equal(single["blocks.1.attn.qkv.weight"], torch.cat(qkv))
    assert torch.equal(single["final_layer.scale_shift_table"], weights["scale_shift_table"])
    back = from_joined_single_file(single, weights, pixart_location)
    assert back.keys() == weights.keys() and all(torch.equal(back[key], weight) for key, weight in weights.items())


def test_pixarts_problems_are_named():
    weights = pixart().state_dict()
    single = pixart_to_single_file(weights)
    del single["blocks.0.cross_attn.kv_linear.bias"]
    single["stranger"] = torch.zeros(1)
    single["x_embedder.proj.bias"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"4 place\(s\): missing blocks.0.cross_attn.kv_linear.bias \(part 1 of 2\)"):
        from_joined_single_file(single, weights, pixart_location)
    with pytest.raises(ValueError, match="no equivalent in the single-file layout"):
        pixart_to_single_file({"transformer_blocks.0.attn3.to_q.weight": torch.zeros(1)})
    key = "transformer_blocks.0.attn1.to_k.bias"
    with pytest.raises(ValueError, match=r"parts of 1 weight\(s\) differ in shape, first of blocks.0.attn.qkv.bias"):
        pixart_to_single_file({**weights, key: torch.zeros(1)})
    del weights[key]
    with pytest.raises(ValueError, match=r"are missing, first blocks.0.attn.qkv.bias \(part 2 of 3\)"):
        pixart_to_single_file(weights)
