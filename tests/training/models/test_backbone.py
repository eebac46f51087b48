import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from tiny import tiny_backbone

from experiments.sampling import one_step
from snoopi_core.formats.checkpoint import OneStepRecipe
from training.models.loading import load_backbone
from training.trainer.export import export_backbone


def save_folder(folder, **scheduler):
    parts = tiny_backbone()
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.network,
        scheduler=DDIMScheduler(**settings, **scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return str(folder)


def test_a_diffusers_folder_and_a_contract_file_are_the_same_model(tmp_path):
    folder = load_backbone(save_folder(tmp_path / "pipeline"))
    path = export_backbone(tmp_path / "file.safetensors", folder, title="t", role="teacher")
    file = load_backbone(str(path))
    assert file.prediction_type == folder.prediction_type == "epsilon"
    assert torch.equal(file.alphas_cumprod(), folder.alphas_cumprod())
    for part in ("network", "vae", "text_encoder"):
        a, b = getattr(folder, part).state_dict(), getattr(file, part).state_dict()
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name].half().float(), b[name]) for name in a)
    assert file.tokenizer("a red ring").input_ids == folder.tokenizer("a red ring").input_ids


def test_schedule_is_fp32_and_correct():
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    want = torch.cumprod(1 - beta, 0)
    got = tiny_backbone().alphas_cumprod()
    assert got.dtype == torch.float32
    assert ((got.double() - want) / want).abs().max() < 1e-4
    assert ((1 - got.double()) / (1 - want) - 1).abs().max() < 1e-3


def test_zero_terminal_snr_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rescale_betas_zero_snr = True, which is not supported"):
        load_backbone(save_folder(tmp_path, rescale_betas_zero_snr=True))


def test_the_prediction_type_can_be_set(tmp_path):
    path = export_backbone(tmp_path / "file.safetensors", tiny_backbone("epsilon"), title="t", role="teacher")
    assert load_backbone(str(path)).prediction_type == "epsilon"
    assert load_backbone(str(path), "v_prediction").prediction_type == "v_prediction"


def test_a_files_own_recipe_is_followed(tmp_path):
    recipe = OneStepRecipe(timesteps=(400,), alpha_T=0.6, sigma_T=0.8)
    path = export_backbone(tmp_path / "file.safetensors", tiny_backbone(), title="t", role="student", recipe=recipe)
    model = load_backbone(str(path))
    assert model.recipe == recipe
    plain = dataclasses.replace(model, recipe=None)
    assert not torch.allclose(one_step(model)(["ring"], [0]), one_step(plain)(["ring"], [0]))


@pytest.mark.parametrize("path", ["nowhere", "models/nowhere.safetensors", "./a/b"])
def test_a_missing_teacher_is_reported_immediately(path):
    with pytest.raises(FileNotFoundError, match="expected a diffusers folder"):
        load_backbone(path)
