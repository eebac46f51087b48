"""Images from the shapes' student do not depend on batches, processes or interruptions."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from evaluation import STUDENT, error_of, evaluate, pictures, pixels, started
from PIL import Image
from processes import TIMEOUT
from published import KINDS, save_folder
from tiny import tiny_backbone

from experiments.sampling import one_step
from snoopi_core.presets import find_preset
from training.evaluate.generate.maker import noise
from training.evaluate.sets.image_files import is_complete
from training.evaluate.sets.manifest import read_manifest
from training.evaluate.sets.rows import seed_of
from training.models.loading import load_backbone
from training.models.sampling_recipe import with_preset

PROMPTS = "a ring\na red square\na ring\n\n  a blue plus on the left\n"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text(PROMPTS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(prompts, tmp_path_factory):
    """Two methods, 4 prompts, 3 images each, in batches of 5; generated in one run."""
    out = tmp_path_factory.mktemp("whole")
    evaluate(*words(prompts, out))
    return out


def words(prompts, out, *more, methods=("none", "nasa:0.7")):
    return (
        *("generate", STUDENT, "--prompts", prompts, "--negative", "triangle", "--count", 3, "--batch", 5),
        *("--methods", *methods, "--out", out, "--cpu", *more),
    )


def test_every_prompt_gets_its_images_with_distinct_seeds(whole):
    manifest = read_manifest(whole / "none")
    assert [row.prompt for row in manifest.images] == [
        p for p in ("a ring", "a red square", "a ring", "a blue plus on the left") for _ in range(3)
    ]
    assert [row.number for row in manifest.images[6:9]] == [3, 4, 5]  # the second "a ring" gets different noise
    assert len({row.seed for row in manifest.images}) == 12
    assert manifest.images[1].seed == seed_of(0, "a ring", 1)
    assert {row.negative for row in manifest.images} == {"triangle"}
    assert manifest.recipe.timesteps == (999,) and manifest.size == (64, 64)
    assert [row.seed for row in read_manifest(whole / "nasa-0.7").images] == [row.seed for row in manifest.images]


def test_images_equal_those_of_the_shapes_sampler(whole):
    model = load_backbone(STUDENT)
    for name, negative in (("none", None), ("nasa-0.7", "triangle")):
        rows = read_manifest(whole / name).images
        generate = one_step(model, method="nasa", scale=0.7)
        images = generate([row.prompt for row in rows], [row.seed for row in rows], negative)
        expected = (images * 255).round().int().permute(0, 2, 3, 1).numpy()
        for row, image in zip(rows, expected, strict=True):
            assert np.abs(pixels(whole / name / row.file) - image).max() <= 1  # the batches differ, so rounding differs


def test_the_metadata_describe_how_an_image_was_generated(whole):
    with Image.open(whole / "nasa-0.7" / "000001.png") as image:
        assert image.size == (64, 64) and image.mode == "RGB"
        assert image.info["prompt"] == "a ring"
        metadata = json.loads(image.info["snoopi"])
    assert (metadata["method"], metadata["negative"], metadata["number"]) == ("nasa:0.7", "triangle", 1)
    assert metadata["seed"] == seed_of(0, "a ring", 1) and len(metadata["model"]["fingerprint"]) == 64
    assert json.loads((whole / "none" / "cost.json").read_text(encoding="utf-8"))["images"] == 12


def test_alpha_zero_is_no_negative(prompts, whole, tmp_path):
    evaluate(*words(prompts, tmp_path, methods=("nasa:0", "nag:0")))
    for name in ("nasa-0", "nag-0"):
        for file in pictures(whole / "none"):
            assert np.array_equal(pixels(tmp_path / name / file), pixels(whole / "none" / file))


def test_a_killed_run_resumes_to_the_same_files(prompts, whole, tmp_path):
    straight, killed = ((tmp_path / name, "--count", 9) for name in ("straight", "killed"))
    evaluate(*words(prompts, *straight, methods=["none"]))
    made, folder = words(prompts, *killed, methods=["none"]), killed[0] / "none"
    [process] = started(tmp_path / "log", *made, signalled=(signal.SIGKILL, 7))
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in folder.glob("0*.png")}
    assert len(before) == 7
    evaluate(*made)
    assert pictures(folder) == pictures(straight[0] / "none")
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert not list(folder.glob(".*.tmp"))


def test_two_processes_write_identical_files(prompts, whole, tmp_path):
    running = started(tmp_path / "log", *words(prompts, tmp_path / "out"), processes=2)
    for process in running:
        process.join(TIMEOUT)
    output = (tmp_path / "log").read_text(encoding="utf-8")
    assert [process.exitcode for process in running] == [0, 0], output[-3000:]
    for name in ("none", "nasa-0.7"):
        assert len(pictures(whole / name)) == 12
        assert pictures(tmp_path / "out" / name) == pictures(whole / name)


def test_the_failing_process_reports_its_error(prompts, tmp_path):
    made = words(prompts, tmp_path / "out", methods=["none"])
    evaluate(*made)
    place = tmp_path / "out" / "none" / "000007.png"  # the second batch belongs to the second process
    place.unlink()
    place.mkdir()
    running = started(tmp_path / "log", *made, processes=2)
    for process in running:
        process.join(TIMEOUT)
    output = (tmp_path / "log").read_text(encoding="utf-8")
    assert all(process.exitcode for process in running)
    assert "error: [Errno 21] Is a directory" in output and str(place) in output, output[-3000:]


def test_batch_size_changes_only_rounding(prompts, whole, tmp_path):
    evaluate(*words(prompts, tmp_path, "--batch", 12))
    for file in pictures(whole / "nasa-0.7"):
        assert np.abs(pixels(tmp_path / "nasa-0.7" / file) - pixels(whole / "nasa-0.7" / file)).max() <= 1


def test_damaged_and_foreign_images_are_regenerated_and_valid_ones_kept(prompts, whole, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(whole, out)
    folder = out / "none"
    whole_file = (folder / "000003.png").read_bytes()
    (folder / "000003.png").write_bytes(whole_file[: len(whole_file) // 2])
    Image.new("RGB", (64, 64)).save(folder / "000004.png")  # valid, but written by another program
    (folder / "000005.png").unlink()
    shutil.copy(folder / "000001.png", folder / "000006.png")  # the image of another row
    kept = (folder / "000007.png").stat().st_mtime_ns
    evaluate(*words(prompts, out))
    assert pictures(folder) == pictures(whole / "none")
    assert (folder / "000007.png").stat().st_mtime_ns == kept
    manifest = read_manifest(folder)
    assert is_complete(folder / "000003.png", manifest.info(manifest.images[3]))


def test_other_settings_are_refused_and_nothing_is_overwritten(prompts, whole, tmp_path, capsys):
    before = pictures(whole / "none")
    output = error_of(capsys, *words(prompts, whole, "--seed", 1))
    assert "seed: 0 -> 1" in output and "choose another --out" in output
    output = error_of(capsys, *words(prompts, whole, "--count", 2))
    assert "12 images -> 8" in output
    assert pictures(whole / "none") == before
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "000000.png").write_bytes(b"mine")
    assert "not empty" in error_of(capsys, *words(prompts, tmp_path))
    assert (tmp_path / "none" / "000000.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "nowhere.safetensors"}, "no model at"),
        ({"--prompts": "nowhere.txt"}, "no prompts at"),
        ({"--methods": "nasa:x"}, "of at least 0"),
        ({"--methods": "magic:1"}, "available: none"),
        ({"--methods": "nasa"}, ""),
        ({"--size": "100"}, "multiple of 8"),
        ({"--timesteps": "1500"}, "ends at 999"),
    ],
)
def test_invalid_arguments(prompts, tmp_path, capsys, change, expected):
    given = {"model": STUDENT, "--prompts": prompts, "--out": tmp_path / "out", "--limit": 1, **change}
    line = ["generate", given.pop("model"), "--cpu", *(word for pair in given.items() for word in pair)]
    if not expected:
        evaluate(*line)  # the file's own alpha
        assert (tmp_path / "out" / "nasa-1").is_dir()
        return
    assert expected in error_of(capsys, *line)
    assert not (tmp_path / "out").exists()


def test_the_papers_protocol_fixes_its_settings(prompts, tmp_path, capsys):
    output = error_of(
        capsys, "generate", STUDENT, "--prompts", prompts, "--out", tmp_path, "--protocol", "paper", "--count", "3"
    )
    assert "--count 3 (the paper's: 1)" in output


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_folders_of_other_programs(kind, prompts, tmp_path):
    folder = save_folder(tmp_path / "model", kind)
    evaluate(
        *("generate", folder, "--prompts", prompts, "--limit", 1, "--negative", "blue", "--out", tmp_path / "out"),
        *("--methods", "none", "nasa:0.5", "--timesteps", 999, 499, "--size", 64, "--cpu"),
    )
    manifest = read_manifest(tmp_path / "out" / "none")
    assert manifest.recipe.timesteps == (999, 499)
    assert manifest.model.family == (kind if kind in ("sdxl", "pixart") else "unet")
    assert len(pictures(tmp_path / "out" / "nasa-0.5")) == 1


def test_published_models_are_sampled_by_their_presets(prompts, tmp_path, capsys):
    folder = save_folder(tmp_path / "model", "sd15")
    model = load_backbone(folder)
    made = ("generate", folder, "--prompts", prompts, "--limit", 2, "--negative", "blue", "--size", 64, "--cpu")
    for preset, alpha in (("InstaFlow-0.9B", "0.19"), ("SwiftBrush", None)):
        out = tmp_path / preset
        evaluate(*made, "--preset", preset, "--methods", "none", *(["nasa"] if alpha else []), "--out", out)
        assert alpha is None or (out / f"nasa-{alpha}").is_dir()
        for row in read_manifest(out / "none").images:
            z = noise([row.seed], (4, *[64 // 2 ** (len(model.vae.config.block_out_channels) - 1)] * 2))
            t = torch.tensor([1000 if alpha else 999])
            output = model.network(z, t, model.encode([row.prompt]).states).sample
            x0 = z + output if alpha else (z - (1 - 0.0047) ** 0.5 * output) / 0.0047**0.5
            expected = (model.decode(x0)[0] * 255).round().int().permute(1, 2, 0).numpy()
            assert np.abs(pixels(out / "none" / row.file) - expected).max() <= 1
    out = tmp_path / "InstaFlow-0.9B"
    assert "prediction: flow -> epsilon" in error_of(capsys, *made, "--methods", "none", "--out", out)
    for preset, expected in (
        ("PixArt-DMD", "is for PixArt, the model is SD1/SD2; presets for it: PG-SB SD1.5"),
        ("Hyper-SD LoRA, 1 step", "takes 1 tcd step(s)"),
        ("DMD3", "available: auto, PG-SB SD1.5"),
    ):
        output = error_of(capsys, *made, "--preset", preset, "--methods", "none", "--out", tmp_path / "x")
        assert expected in output
    output = error_of(capsys, *made, "--preset", "SwiftBrush", "--out", tmp_path / "x")
    assert "preset 'SwiftBrush' recommends no alpha" in output


@pytest.mark.parametrize("own", ["epsilon", "v_prediction"])
def test_the_presets_of_our_own_students_keep_the_models_output(own):
    model = with_preset(tiny_backbone(own), find_preset("PG-SB, 4 steps"))
    assert (model.prediction_type, model.recipe.timesteps) == (own, (999, 749, 499, 249))


def test_files_become_groups_and_a_list_of_strings_is_read(tmp_path):
    folder = tmp_path / "styles"
    folder.mkdir()
    (folder / "anime.json").write_text('["a ring", "a square"]', encoding="utf-8")
    (folder / "photo.json").write_text('["a plus", "a ring"]', encoding="utf-8")
    evaluate(
        *("generate", STUDENT, "--prompts", folder, "--limit", 1, "--methods", "none"),
        *("--out", tmp_path / "out", "--cpu"),
    )
    rows = read_manifest(tmp_path / "out" / "none").images
    assert [(row.group, row.prompt) for row in rows] == [("anime", "a ring"), ("photo", "a plus")]
