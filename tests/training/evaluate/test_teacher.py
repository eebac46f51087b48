"""Sampling the teacher in many steps, compared with diffusers' own pipelines."""

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import PixArtAlphaPipeline, StableDiffusionPipeline
from evaluation import ROOT, error_of, evaluate, pixels
from published import save_folder

from experiments.sampling import ManySteps
from training.evaluate.generate.maker import noise
from training.evaluate.sets.manifest import read_manifest
from training.models.guidance.methods import Method
from training.models.loading import load_backbone

TEACHER = str(ROOT / "models" / "snoopi-shapes-teacher.safetensors")
METHODS = ("teacher:3:2.5", "teacher-negative:3:2.5")


def made(out, model, *more):
    (out.parent / "prompts.txt").write_text("a red ring\na square\n", encoding="utf-8")
    words = ("generate", model, "--prompts", out.parent / "prompts.txt", "--negative", "blue", "--cpu")
    return (*words, "--methods", *METHODS, "--out", out, *more)


def test_the_shapes_teacher_is_sampled_as_in_its_published_figures(tmp_path):
    evaluate(*made(tmp_path / "out", TEACHER))
    generate = ManySteps(model=load_backbone(TEACHER), steps=3, cfg=2.5)
    for method, negative in zip(METHODS, (None, "blue"), strict=True):
        folder = tmp_path / "out" / method.replace(":", "-")
        manifest = read_manifest(folder)
        assert (manifest.scheduler, manifest.recipe, manifest.method) == ("DDIMScheduler", None, method)
        images = generate([r.prompt for r in manifest.images], [r.seed for r in manifest.images], negative)
        for row, image in zip(manifest.images, images, strict=True):
            expected = (image * 255).round().int().permute(1, 2, 0).numpy()
            assert np.abs(pixels(folder / row.file) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["sd15", "pixart"])
def test_a_folder_is_sampled_with_its_own_scheduler(kind, tmp_path):
    folder = save_folder(tmp_path / "model", kind)
    evaluate(*made(tmp_path / "out", folder, "--size", 64))
    pipeline, more = StableDiffusionPipeline, {}
    if kind == "pixart":
        pipeline, more = PixArtAlphaPipeline, {"clean_caption": False, "use_resolution_binning": False}
    pipe = pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    for method, negative in zip(METHODS, ("", "blue"), strict=True):
        place = tmp_path / "out" / method.replace(":", "-")
        manifest = read_manifest(place)
        assert manifest.scheduler == type(pipe.scheduler).__name__ != "DDIMScheduler"
        side = 64 // pipe.vae_scale_factor
        for row in manifest.images:
            image = pipe(
                row.prompt,
                negative_prompt=negative,
                latents=noise([row.seed], (4, side, side)),
                num_inference_steps=3,
                guidance_scale=2.5,
                height=64,
                width=64,
                output_type="np",
                **more,
            ).images[0]
            assert np.abs(pixels(place / row.file) - (255 * image).round()).max() <= 3


def test_a_scheduler_that_draws_noise_is_refused_by_name(tmp_path, capsys):
    folder = Path(save_folder(tmp_path / "model", "sd15"))
    config = folder / "scheduler" / "scheduler_config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(content | {"_class_name": "EulerAncestralDiscreteScheduler"}), encoding="utf-8")
    output = error_of(capsys, *made(tmp_path / "out", folder, "--size", 64))
    assert "EulerAncestralDiscreteScheduler" in output and "supported, without random noise: DDIMScheduler" in output
    assert not (tmp_path / "out").exists()


def test_teacher_arguments():
    method = Method.parse("teacher-negative:25:7.5")
    assert (method.steps, method.strength, str(method)) == (25, 7.5, "teacher-negative:25:7.5")
    assert str(method.plain()) == "teacher:25:7.5" and str(Method.parse("nasa:0.3").plain()) == "none"
    for wrong in ("teacher", "teacher:7.5", "teacher:0:7.5", "teacher:2.5:7.5", "nasa:3:0.3"):
        with pytest.raises(ValueError, match="method"):
            Method.parse(wrong)


def test_the_teacher_has_its_own_row_and_is_its_own_baseline(pairs_file, tmp_path):
    words = ("generate", TEACHER, "--pairs", pairs_file, "--count", 1, "--cpu", "--title", "SD2.1")
    evaluate(*words, "--methods", "teacher:25:2", "--out", tmp_path)
    evaluate("removal", tmp_path, "--judge", "shapes")
    evaluate("score", tmp_path, "--metrics", "--plugins", f"{__name__}:one")
    evaluate("report", tmp_path, "--out", tmp_path / "report.html")
    assert "| SD2.1 25 steps | teacher:25:2 |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def one(pictures, prompts):
    """A plug-in."""
    return [1.0] * len(pictures)
