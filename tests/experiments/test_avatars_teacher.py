"""The avatars' networks with tiny settings: each is trained, resumed as if never stopped, and written."""

from dataclasses import replace

import numpy
import pytest
import torch
from filelock import FileLock

from experiments.avatars_teacher import build, codec, data, short_captions, teacher, text
from experiments.avatars_teacher.codec import CodecRecipe, finished_vae, measure, new_vae, perturb, train_half
from experiments.avatars_teacher.data import Pictures
from experiments.avatars_teacher.latents import CHANNELS, fit_code, load_code
from experiments.avatars_teacher.teacher import TeacherRecipe, new_unet, train_teacher
from experiments.avatars_teacher.text import TextRecipe, examples, load_text_encoder, train_text_encoder
from experiments.training_loop import Training, learning_rate
from snoopi_core.formats.architecture import unet_arguments, vae_arguments
from snoopi_core.formats.checkpoint import read_metadata
from training import export
from training.config import Recipe
from training.models.clip_tokenizer import clip_tokenizer
from training.models.loading import load_backbone
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.parse import parse
from training.prompts.avatars.scene import sample_scenes
from training.trainer.export import export_student

TEXT = TextRecipe(iterations=2, batch=4)
CODEC = CodecRecipe(decoder_iterations=2, encoder_iterations=1, batch=2)
TEACHER = TeacherRecipe(iterations=2, batch=4, channels=(32, 32))


@pytest.fixture(scope="module")
def pictures():
    """Noise in place of drawings: the loops do not care."""
    scenes = sample_scenes(40, torch.Generator().manual_seed(0))
    images = numpy.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=numpy.uint8)
    return Pictures(images=images, scenes=scenes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    out = tmp_path_factory.mktemp("avatars")
    assert train_text_encoder(out, TEXT)
    assert train_half(out, "decoder", pictures, CODEC)
    assert train_half(out, "encoder", pictures, CODEC)
    assert train_teacher(out, pictures, TEACHER)
    return out


def test_the_code_is_white_and_linear(pictures):
    code = fit_code(pictures)
    latents = code.encode_all(pictures)[pictures.held_back :]
    assert latents.shape == (20, CHANNELS, 8, 8)
    flat = latents.transpose(0, 1).flatten(1)
    assert torch.allclose(flat.mean(1), torch.zeros(CHANNELS), atol=1e-3)
    assert torch.allclose(torch.cov(flat), torch.eye(CHANNELS), atol=2e-2)
    images = pictures.batch(torch.arange(2))
    middle = code.encode(images.mean(0, keepdim=True))
    assert torch.allclose(middle, code.encode(images).mean(0, keepdim=True), atol=1e-4)


def test_a_saved_code_is_used_again(folder, pictures):
    other = replace(pictures, images=255 - pictures.images)
    assert torch.equal(load_code(folder / "code.safetensors", other).basis, fit_code(pictures).basis)


def test_pictures_are_drawn_once_and_held_back_ones_are_not_for_training(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 2)
    data._chunk(tmp_path, 0, 0)
    data._chunk(tmp_path, 0, 1)
    found = data.load(tmp_path, 3)
    assert found.images.shape == (3, 64, 64, 3) and len(found.scenes) == 3
    monkeypatch.setattr(data, "draw", None)
    data._chunk(tmp_path, 0, 1)  # is there
    with pytest.raises(FileNotFoundError, match=r"chunk-0002.npy \(1 of 3 files are missing\).*--count 6"):
        data.load(tmp_path, 6)
    rows = found.sample(200, torch.Generator().manual_seed(0))
    assert int(rows.min()) == found.held_back == 1 and int(rows.max()) == 2


def test_a_resumed_training_continues_as_if_it_had_never_stopped(folder, pictures, tmp_path, monkeypatch):
    (tmp_path / "code.safetensors").write_bytes((folder / "code.safetensors").read_bytes())
    for recipe in (replace(CODEC, decoder_iterations=1), CODEC):
        monkeypatch.setattr("experiments.training_loop.learning_rate", lambda iteration, iterations: 1e-2)
        train_half(tmp_path, "decoder", pictures, recipe)
    resumed = torch.load(tmp_path / "decoder.pt", weights_only=True)
    (tmp_path / "decoder.pt").unlink()
    train_half(tmp_path, "decoder", pictures, CODEC)
    whole = torch.load(tmp_path / "decoder.pt", weights_only=True)
    assert resumed["iteration"] == whole["iteration"] == 2
    for part in ("trained", "average"):
        for name, weight in whole["networks"][part].items():
            assert torch.equal(weight, resumed["networks"][part][name]), name


def test_an_interrupted_training_saves_and_says_that_it_is_not_done(tmp_path):
    network = torch.nn.Linear(2, 1)
    training = Training(
        folder=tmp_path,
        name="line",
        networks={"line": network},
        optimizer=torch.optim.AdamW(network.parameters(), lr=0.1),
        iterations=5,
    )

    def losses(iteration: int) -> dict[str, torch.Tensor]:
        if iteration == 2:
            training._stop()  # as SIGTERM does
        return {"loss": network(torch.ones(1, 2)).square().sum()}

    assert not training.run(losses)
    assert training.resume() == 3
    with FileLock(tmp_path / "line.lock"), pytest.raises(RuntimeError, match=r"line in .* trained by another process"):
        training.run(losses)
    with pytest.raises(FloatingPointError, match="iteration 3 is not finite"):
        Training.run(training, lambda iteration: {"loss": network(torch.full((1, 2), torch.inf)).sum() * 0})


def test_the_learning_rate_rises_stays_and_falls():
    rates = [learning_rate(n, 1000) for n in range(1000)]
    assert rates[0] < 0.02 and rates[99] == rates[600] == 1.0 and 0.01 <= rates[-1] < 0.02
    assert learning_rate(600, 2000) == 1.0  # a training may be made longer while the rate is constant


def test_the_encoder_reads_captions_and_its_weights_are_exact_in_fp16(folder):
    encoder = load_text_encoder(folder)
    assert encoder.config.vocab_size == len(clip_tokenizer())
    assert all(torch.equal(weight, weight.half().float()) for weight in encoder.parameters())
    captions, facts = examples(40, torch.Generator().manual_seed(0))
    reader = text.Reader(encoder)
    answers = reader.answers(facts)
    for row in range(len(captions)):
        read = {name: reader.questions[name][int(answers[name][row])] for name in answers}
        assert {name: values for name, values in read.items() if values} == facts[row]


def test_the_host_can_build_the_networks(folder, pictures):
    vae = finished_vae(folder, CODEC)
    assert (
        vae_arguments(vae.config)["embed_dim"]
        == CHANNELS
        == unet_arguments(new_unet(TeacherRecipe()).config)["in_channels"]
    )
    assert all(torch.equal(weight, weight.half().float()) for weight in vae.parameters())
    assert set(measure(vae, pictures, 2)) == {"l1", "psnr", "worst psnr"}


def test_the_assembled_teacher_and_its_students_name_the_artists(folder, tmp_path):
    pipeline = build.assemble(folder, CODEC, TEACHER)
    assert export.main([str(pipeline), "--title", "avatars", "--out", str(tmp_path / "teacher.safetensors")]) == 0
    teacher = load_backbone(str(tmp_path / "teacher.safetensors"))
    prompts, sizes = {"source": "avatars"}, {"latent_size": 8}
    recipe = Recipe.model_validate({"teacher": {"path": "t"}, "prompts": prompts, "loop": sizes})
    path = export_student(tmp_path / "student.safetensors", teacher, teacher.network.state_dict(), recipe, 1)
    for file in (tmp_path / "teacher.safetensors", path):
        notes = read_metadata(file).provenance.notes
        assert "Personas by Draftbit" in notes and "CC BY 4.0" in notes and "CC0 1.0" in notes


def test_a_perturbed_latent_stays_near():
    latents = torch.randn(64, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
    other = perturb(latents, CodecRecipe(), torch.Generator().manual_seed(1))
    assert torch.allclose(other.std(), latents.std(), atol=0.15)
    same = (other == latents).flatten(1).all(1).float().mean()
    assert 0.05 < same < 0.4  # a fifth is left alone


def test_shipped_networks_fit_into_sixteen_megabytes(folder):
    encoder = text.new_text_encoder(0, width=text.WIDTH, layers=text.LAYERS)
    parts = (new_vae(CodecRecipe()), new_unet(TeacherRecipe()), encoder)
    assert 2 * sum(weight.numel() for part in parts for weight in part.parameters()) < 15.9e6


@pytest.mark.parametrize("module", [build, data, codec, text, teacher, short_captions])
def test_each_stage_has_a_command(module, capsys):
    with pytest.raises(SystemExit):
        module.main(["--help"])
    assert "--out" in capsys.readouterr().out


def test_half_of_the_last_captions_name_the_subject_and_at_most_one_thing():
    found = short_captions.captions(50)
    assert len(found) == 100 and all(found) and found == short_captions.captions(50)
    several = [len(parse(text)) for text in found]
    assert max(several[:50]) > 3 and max(several[50:]) == 2
    assert all(SUBJECT in parse(text) for text in found[50:])
