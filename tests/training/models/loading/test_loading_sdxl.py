"""Stable Diffusion XL: the loaded model computes what diffusers does, from a folder and from a single file."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from published import POOLED, clip_weights, published, save_folder, single_file_weights, write
from reference import relative_error

from training.config import Teacher
from training.models.loading import describe_encoder, load_backbone, load_teacher
from training.models.text_cache import TextCache
from training.models.text_cache.build import build_shards, finish

PROMPTS = ["A red ring, isn't it?", "", "a dog " * 60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_folder(tmp_path_factory.mktemp("sdxl"), "sdxl")


@pytest.fixture(scope="module")
def pipeline(folder):
    return StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)


@pytest.fixture(scope="module")
def single_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("single") / "model.safetensors", single_file_weights("sdxl"))


def same(got, expected):
    got, expected = got.state_dict(), expected.state_dict()
    return got.keys() == expected.keys() and all(torch.equal(got[key], expected[key]) for key in got)


@pytest.mark.parametrize("kind", ["folder", "single_file"])
@torch.no_grad()
def test_it_computes_what_diffusers_pipeline_does(request, pipeline, kind):
    backbone = load_backbone(request.getfixturevalue(kind))
    assert (backbone.family.name, backbone.prediction_type) == ("sdxl", "epsilon")
    assert same(backbone.network, pipeline.unet) and same(backbone.vae, pipeline.vae)
    assert backbone.vae.config.scaling_factor == 0.13025
    states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    text = backbone.encode(PROMPTS)
    assert relative_error(text.states, states) <= 1e-6 and relative_error(text.pooled, pooled) <= 1e-6
    x, t = torch.randn(3, 4, 8, 16), torch.tensor([999, 400, 20])
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 128, 0, 0, 64, 128]] * 3)}  # height before width
    expected = pipeline.unet(x, t, states, added_cond_kwargs=added).sample
    assert relative_error(backbone.call(backbone.network, x, t, text), expected) <= 1e-6
    assert backbone.count_tokens(PROMPTS) == [10, 2, 122] and backbone.max_tokens == 77


def test_without_its_text_encoders(folder):
    backbone = load_backbone(folder, t5=None)
    assert backbone.text_encoder is None and backbone.tokenizer is None and backbone.max_tokens == 77


def test_in_half_precision_alone_as_the_hub_has_it(folder, tmp_path):
    half = shutil.copytree(folder, tmp_path / "half")
    for path in half.glob("*/*.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert same(load_backbone(str(half)).text_encoder, published("sdxl")["text_encoder"])


def test_v_prediction_as_files_state_it(single_file, tmp_path):
    weights = single_file_weights("sdxl") | {"v_pred": torch.zeros(0)}
    assert load_backbone(write(tmp_path / "v.safetensors", weights)).prediction_type == "v_prediction"
    assert load_backbone(single_file, "v_prediction").prediction_type == "v_prediction"


@torch.no_grad()
def test_the_text_cache_holds_the_pooled_embedding_too(folder, tmp_path):
    section = Teacher(path=folder)
    backbone = load_teacher(section)
    encoder = describe_encoder(section, backbone)
    assert encoder["pooled"] == POOLED and encoder["weights"].keys() == {
        "model.safetensors",
        "text_encoder_2/model.safetensors",
    }
    build_shards(tmp_path, PROMPTS, backbone.encode, backbone.count_tokens, encoder)
    finish(tmp_path, encoder, masked=False)
    cached = load_teacher(section, text_cache=str(tmp_path))
    assert cached.text_encoder is None
    text, expected = cached.encode(PROMPTS[::-1]), backbone.encode(PROMPTS[::-1])
    assert torch.equal(text.states, expected.states.bfloat16().float()) and text.mask is None
    assert torch.equal(text.pooled, expected.pooled.bfloat16().float())
    assert cached.count_tokens(PROMPTS) == [10, 2, 122]
    with pytest.raises(ValueError, match=r"of another encoder.*pooled 32, not 40"):
        TextCache.open(tmp_path, encoder | {"pooled": 40})


class TestRefused:
    def test_a_part_is_missing(self, folder, tmp_path):
        other = shutil.copytree(folder, tmp_path / "other")
        shutil.rmtree(other / "text_encoder_2")
        with pytest.raises(FileNotFoundError, match=r"has no text_encoder_2/; Stable Diffusion XL has"):
            load_backbone(str(other))

    def test_the_refiners_five_sizes(self, folder, tmp_path):
        other = Path(save_folder(tmp_path, "sdxl", network=self.refiner()))
        with pytest.raises(ValueError, match="pooled embedding has width 32, the network expects -224, as Stable"):
            load_backbone(str(other))

    def refiner(self):
        network = published("sdxl")["network"]
        return type(network).from_config({**network.config, "projection_class_embeddings_input_dim": POOLED + 5 * 256})

    def test_a_file_with_weights_of_other_models(self, tmp_path):
        weights = single_file_weights("sdxl") | {"edm_mean": torch.zeros(4)}
        with pytest.raises(ValueError, match=r"1 weight\(s\) that do not belong to Stable Diffusion XL, like its ref"):
            load_backbone(write(tmp_path / "model.safetensors", weights))

    def test_a_file_without_the_second_text_encoder(self, folder, tmp_path):
        weights = single_file_weights("sdxl")
        weights = {key: weight for key, weight in weights.items() if not key.startswith("conditioner.embedders.1.")}
        path = write(tmp_path / "model.safetensors", weights)
        with pytest.raises(ValueError, match="has no text_encoder; name a diffusers folder"):
            load_backbone(path)
        assert same(load_backbone(path, text_encoder=folder).text_encoder, published("sdxl")["text_encoder"])

    def test_sd15s_encoder_for_an_sdxl_network(self, tmp_path):
        """Its file has other names for the text encoder."""
        weights = {k: w for k, w in single_file_weights("sdxl").items() if not k.startswith("conditioner.")}
        weights |= clip_weights(published("sd15")["text_encoder"])
        with pytest.raises(ValueError, match="do not belong to Stable Diffusion XL"):
            load_backbone(write(tmp_path / "model.safetensors", weights))
