"""The build writes a complete pipeline folder and repeats no stage; properties of its sampler and codec."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline

from experiments.clip_text import new_text_encoder
from experiments.sampling import ManySteps, one_step
from experiments.shapes_teacher import build as builder
from experiments.shapes_teacher.codec import CodecRecipe, neighbours, new_vae, perturb
from experiments.shapes_teacher.latents import latents_of
from experiments.shapes_teacher.train import TeacherRecipe, new_unet
from training.models.loading import load_backbone
from training.prompts.shapes.scene import ATTRIBUTES, sample_scenes

CODEC = CodecRecipe(encoder_iterations=2, decoder_iterations=2, batch=4)
TEACHER = TeacherRecipe(iterations=3, scenes=16, batch=4, centring=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    builder.build(out, CODEC, TEACHER)
    return out


def test_the_folder_loads_as_a_pipeline_and_as_a_backbone(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a red ring", num_inference_steps=2, height=64, width=64, output_type="np").images
    assert images.shape == (1, 64, 64, 3)
    assert load_backbone(str(folder)).prediction_type == "v_prediction"
    assert {json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text().splitlines()} == {
        "vae encoder",
        "vae decoder",
        "teacher",
    }


def test_weights_are_exact_in_fp16(folder):
    model = load_backbone(str(folder))
    for part in (model.network, model.vae, model.text_encoder):
        assert all(torch.equal(weight, weight.half().float()) for weight in part.parameters())


def test_finished_stages_are_not_repeated_and_other_settings_are_refused(folder, monkeypatch):
    monkeypatch.setattr(builder, "train_codec", None)
    monkeypatch.setattr(builder, "train_teacher", None)
    builder.build(folder, CODEC, TEACHER)
    with pytest.raises(ValueError, match=r"teacher\.iterations"):
        builder.build(folder, CODEC, TeacherRecipe(iterations=4, scenes=16, batch=4, centring=0.02))


def test_an_images_noise_does_not_depend_on_its_batch(folder):
    model = load_backbone(str(folder))
    for generate in (one_step(model), ManySteps(model=model, steps=2)):
        both = generate(["a ring", "a red shape"], [1, 2])
        assert torch.allclose(both[1:], generate(["a red shape"], [2]), atol=1e-4)


def test_negatives_by_every_method(folder):
    model = load_backbone(str(folder))
    plain = one_step(model)(["a ring"], [1])
    assert torch.equal(one_step(model, scale=0.0)(["a ring"], [1], "red"), plain)
    for method in ("nasa", "cfg", "embeddings"):
        assert not torch.equal(one_step(model, method=method, scale=1.5)(["a ring"], [1], "red"), plain)
    with pytest.raises(ValueError, match="available: none, nasa, cfg, embeddings, nag"):
        one_step(model, method="hope")(["a ring"], [1], "red")
    with pytest.raises(ValueError, match="one seed per prompt"):
        one_step(model)(["a ring"], [1, 2])


def test_the_same_seed_gives_the_same_text_encoder():
    first, second, other = new_text_encoder(0), new_text_encoder(0), new_text_encoder(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_the_files_stay_small_and_fit_the_host():
    unet, vae = new_unet(TeacherRecipe()), new_vae()
    size = sum(weight.numel() for part in (unet, vae) for weight in part.parameters())
    assert size <= 2_800_000  # with the vocabulary: two fp16 files within 25 MB
    for channels in (*unet.config.block_out_channels, *vae.config.block_out_channels):
        assert channels % 32 == 0


def test_perturbed_latents_are_nearest_to_their_originals():
    generator = torch.Generator().manual_seed(0)
    scenes = sample_scenes(64, generator)
    beside = neighbours(scenes, generator)
    assert all(
        sum(a.value(name) != b.value(name) for name in ATTRIBUTES) <= 1 for a, b in zip(scenes, beside, strict=True)
    )
    latents, others = latents_of(scenes), latents_of(beside)
    perturbed = perturb(latents, others, CodecRecipe(noise=0.1), generator)
    to_self, to_other = (perturbed - latents).flatten(1).norm(dim=1), (perturbed - others).flatten(1).norm(dim=1)
    differ = (latents - others).flatten(1).norm(dim=1) > 1
    assert differ.sum() > 30
    assert (to_self < to_other)[differ].float().mean() > 0.9


def test_the_latents_are_balanced():
    generator = torch.Generator().manual_seed(0)
    scenes, others = sample_scenes(1500, generator), sample_scenes(1500, generator)
    latents = latents_of(scenes)
    assert latents.std() == pytest.approx(1.0, abs=0.05)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.1
    for name, low in (("colour", 0.2), ("shape", 0.3), ("position", 0.3), ("background", 0.05)):
        changed = [replace(a, **{name: b.value(name)}) for a, b in zip(scenes, others, strict=True)]
        share = (latents_of(changed) - latents).square().sum(dim=(1, 2, 3)).mean() / 2 / latents.var(dim=0).sum()
        assert share > low, name
