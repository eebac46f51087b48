"""PG-SB Loader opens networks of the avatars' shape: 16 latent channels, a text encoder of width 48."""

from __future__ import annotations

import pytest
import torch
from reference import relative_error

from experiments.avatars_teacher.codec import CodecRecipe, new_vae
from experiments.avatars_teacher.teacher import TeacherRecipe, new_unet
from experiments.avatars_teacher.text import LAYERS, WIDTH
from experiments.clip_text import new_text_encoder, token_ids
from experiments.diffusion_teacher import as_shipped, new_scheduler
from training.models.clip_tokenizer import clip_tokenizer
from training.models.loading import load_backbone
from training.trainer.export import export_backbone

pytestmark = pytest.mark.host
CAPTION = "a person with long red hair and glasses, wearing a blue sweater, on a white background"


@pytest.fixture(scope="module")
def parts(tmp_path_factory, folder, loader):
    """(the teacher as diffusers loads it, MODEL, CLIP, VAE of the host), with random weights."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    saved = tmp_path_factory.mktemp("avatars")
    StableDiffusionPipeline(
        vae=as_shipped(new_vae(CodecRecipe())),
        text_encoder=new_text_encoder(0, width=WIDTH, layers=LAYERS),
        tokenizer=clip_tokenizer(),
        unet=as_shipped(new_unet(TeacherRecipe())),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(saved)
    backbone = load_backbone(str(saved))
    export_backbone(folder / "avatars.safetensors", backbone, title="avatars", role="teacher")
    return backbone, *loader.execute("avatars.safetensors").result


def test_the_same_in_the_host_and_in_diffusers(parts):
    backbone, model, clip, vae = parts
    assert backbone.prediction_type == "v_prediction"
    tokens = clip.tokenize(CAPTION)
    assert [token for token, _ in tokens["l"][0]] == token_ids([CAPTION])[0].tolist()
    context = clip.encode_from_tokens_scheduled(tokens)[0][0]
    assert relative_error(context, backbone.encode([CAPTION]).states) <= 1e-5
    latents, t = torch.randn(2, 16, 8, 8), 700
    with torch.no_grad():
        got = model.model.diffusion_model(latents, torch.tensor([t, t]), context=context.expand(2, -1, -1))
        expected = backbone.network(latents, t, encoder_hidden_states=context.expand(2, -1, -1)).sample
    assert relative_error(got, expected) <= 1e-5
    assert relative_error(vae.decode(latents).movedim(-1, 1), backbone.decode(latents)) <= 1e-4


def test_the_file_fits_the_repository(parts, folder):
    assert (folder / "avatars.safetensors").stat().st_size < 16e6
