"""Single files of the published models at their full size: sparse files, of which only the header is read."""

import json

import pytest
import torch
from full_size import meta_network, single_file_weights, write_sparse
from full_size_parts import TEXT, prefixed, vae_weights

from training.models.loading import open_model
from training.models.loading.infer_config import clip_config, pixart_config, sdxl_config, unet_config, vae_config

# Taken from the published configs; everything else follows from the shapes.
CLIP = {
    "SD1.5": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
    "SD2.1": {"num_hidden_layers": 23, "hidden_size": 1024, "num_attention_heads": 16, "hidden_act": "gelu"},
}


def whole(name):
    weights = prefixed(single_file_weights(name))
    return weights if name not in TEXT else weights | TEXT[name]() | vae_weights()


READERS = {"SD1.5": unet_config, "SD2.1": unet_config, "SDXL": sdxl_config, "PixArt-alpha 512": pixart_config}
FAMILIES = {"SD1.5": "unet", "SD2.1": "unet", "SDXL": "sdxl", "PixArt-alpha 512": "pixart"}


@pytest.mark.parametrize("name", READERS)
def test_the_networks_config_is_the_published_one(name):
    published = meta_network(name)
    with torch.device("meta"):
        read = type(published)(**READERS[name](single_file_weights(name)))
    assert _settings(read) == _settings(published)


def _settings(network):
    return {key: value for key, value in json.loads(network.to_json_string()).items() if not key.startswith("_")}


@pytest.mark.parametrize("name", ["SD1.5", "SD2.1"])
def test_the_text_encoders_and_the_vaes(name):
    token_embedding = next(weight for key, weight in TEXT[name]().items() if "token_embedding" in key)
    config = clip_config(token_embedding, layers=CLIP[name]["num_hidden_layers"], sd2=name == "SD2.1")
    assert {key: config[key] for key in CLIP[name]} == CLIP[name]
    vae = vae_config({key.removeprefix("first_stage_model."): weight for key, weight in vae_weights().items()})
    assert vae["block_out_channels"] == [128, 256, 512, 512] and vae["layers_per_block"] == 2
    assert (vae["latent_channels"], vae["scaling_factor"]) == (4, 0.18215)


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_files_are_recognised(tmp_path, name):
    source = open_model(str(write_sparse(tmp_path / "model.safetensors", whole(name))))
    assert source.family == FAMILIES[name]
    assert (source.read_text_encoder is None) == (source.read_vae is None) == ("PixArt" in name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SDXL refiner", "it is not Stable Diffusion XL's base, but a relative such as its refiner"),
        ("PixArt-alpha 1024", "like PixArt at 1024 px"),
    ],
)
def test_unsupported_variants_are_refused_by_name(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        open_model(str(write_sparse(tmp_path / "model.safetensors", whole(name))))
