"""The command `python -m training.pgsb`: a run from a teacher on disk to an exported student; dry runs; errors."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import STOCK_SCALE, tiny_backbone
from trainer import train

from snoopi_core.formats.checkpoint import read_checkpoint
from snoopi_core.formats.layouts import to_single_file, unet_rename
from training.export import main as export
from training.models.loading import load_backbone
from training.pgsb import _parser, _recipe, main
from training.trainer.export import export_backbone
from training.trainer.run_folder.checkpoint import checkpoints

ITERATIONS = 8


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    backbone = tiny_backbone("v_prediction", latent_scale=STOCK_SCALE)
    return export_backbone(path, backbone, title="tiny", role="teacher")


def arguments(teacher, folder, *more):
    return [
        *("--recipe", "shapes", "--cpu"),
        f"teacher.path={teacher}",
        f"output.folder={folder}",
        f"loop.iterations={ITERATIONS}",
        "loop.batch_size=2",
        "output.save_every=2",
        "output.sample_every=4",
        'output.sample_prompts=["a ring", "two"]',
        "output.log_every=1",
        *more,
    ]


@pytest.fixture(scope="module")
def finished(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert main(arguments(teacher, folder)) == 0
    return folder


def weights(folder):
    newest = checkpoints(folder / "checkpoints")[-1]
    return {name: load_file(newest / f"{name}.safetensors") for name in ("student", "ema", "lora")}


def assert_same_weights(a, b):
    for network, tensors in weights(a).items():
        other = weights(b)[network]
        assert tensors.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in tensors.items()), f"{network} differs"


def test_a_run_explains_itself(finished):
    assert (finished / "recipe.toml").read_text(encoding="utf-8").count("[") >= 7
    assert "torch" in json.loads((finished / "environment.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["iteration"] for line in lines] == list(range(1, ITERATIONS + 1))
    assert all(0.5 <= line["kappa"] <= 4.0 for line in lines)
    assert sorted(path.name for path in (finished / "samples").glob("*.png")) == [
        "step-00000004.png",
        "step-00000008.png",
    ]
    assert [path.name for path in checkpoints(finished / "checkpoints")] == [f"step-{n:08d}" for n in (4, 6, 8)]


def test_exported_student_is_the_averaged_one(finished, teacher):
    student = read_checkpoint(finished / "export" / "student.safetensors")
    assert student.metadata.role == "student" and student.metadata.prediction_type == "v_prediction"
    assert student.metadata.recipe.timesteps == (999,)
    assert student.metadata.recipe.alpha_T**2 == pytest.approx(0.00466, abs=1e-5)
    assert student.metadata.provenance.step == ITERATIONS and len(student.metadata.provenance.recipe_sha256) == 64
    unet = load_backbone(str(teacher)).network
    ema = to_single_file(weights(finished)["ema"], unet_rename(unet.config))
    assert ema.keys() == student.unet.keys()
    assert all(torch.equal(student.unet[name], tensor.half()) for name, tensor in ema.items())
    raw = to_single_file(weights(finished)["student"], unet_rename(unet.config))
    assert any(not torch.equal(raw[name], ema[name]) for name in raw)


def test_a_second_run_is_identical_and_names_the_command_that_measures_it(finished, teacher, tmp_path, capsys):
    assert main(arguments(teacher, tmp_path)) == 0
    assert_same_weights(finished, tmp_path)
    student = tmp_path / "export" / "student.safetensors"
    assert f"python -m experiments.shapes.evaluate {student} --as student" in capsys.readouterr().out


def test_errors_leave_the_run_as_it_was(finished, teacher, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert main(arguments(teacher, finished)) == 2
    assert "already holds a run; continue it with --resume" in capsys.readouterr().err
    assert main(arguments(teacher, finished, "--resume", "guidance.kappa_max=3")) == 2
    assert "guidance.kappa_max: 4.0 -> 3.0" in capsys.readouterr().err
    assert main(arguments("nowhere/at/all", finished, "output.folder=unused")) == 2
    assert "teacher.path: nothing at 'nowhere/at/all'" in capsys.readouterr().err
    assert main(arguments(teacher, finished, "student.timestep=1000", "output.folder=unused")) == 2
    assert "student.timestep is 1000, but the teacher's last timestep is 999" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_dry_run_writes_nothing(teacher, tmp_path, capsys):
    assert main(arguments(teacher, tmp_path / "run", "--dry-run")) == 0
    assert "[guidance]" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [["--dry-run"], ["loop.iterations=1", "output.sample_every=0"]])
@pytest.mark.parametrize(
    ("settings", "hinted"), [([], True), (["lora.loss=native"], False), (["teacher.prediction_type=epsilon"], False)]
)
def test_the_papers_loss_of_a_v_predicting_teacher_is_explained(
    teacher, tmp_path, capsys, caplog, more, settings, hinted
):
    with caplog.at_level("INFO"):
        assert main(arguments(teacher, tmp_path / "run", *more, *settings)) == 0
    assert ("by alpha_t^4" in capsys.readouterr().out + caplog.text) == hinted


def test_a_dry_run_describes_the_run_in_its_folder(finished, teacher, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert main(arguments(teacher, finished, "--dry-run")) == 2
    assert "already holds a run; continue it with --resume" in capsys.readouterr().err
    resume = ["--resume", str(finished), "--dry-run", "--cpu"]
    assert main([*resume, "guidance.kappa_max=3"]) == 2
    assert "guidance.kappa_max: 4.0 -> 3.0" in capsys.readouterr().err
    assert main([*resume, "guidance.kappa_max=3", "loop.iterations=25", "--accept-changes"]) == 0
    output = capsys.readouterr().out
    assert f"at iteration {ITERATIONS} of 25" in output and "changed  guidance.kappa_max: 4.0 -> 3.0" in output
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_a_dry_run_counts_a_short_file_once(teacher, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red ring\n\nblue\n\ntwo\n", encoding="utf-8")
    assert main(arguments(teacher, tmp_path / "run", "--dry-run", f"prompts.source={tmp_path / 'prompts.txt'}")) == 0
    output = capsys.readouterr().out
    assert "3: 3 different, 0 too long" in output and "2 without text" in output


def test_a_model_that_the_host_could_not_build_is_not_exported(tmp_path):
    backbone = tiny_backbone()
    backbone.network.register_to_config(norm_num_groups=16)
    with pytest.raises(ValueError, match="no UNet with these settings: norm_num_groups is 16, expected 32"):
        export_backbone(tmp_path / "x.safetensors", backbone, title="x", role="teacher")
    assert not list(tmp_path.iterdir())


def test_an_exported_file_contains_no_local_paths(finished, tmp_path):
    header = (finished / "export" / "student.safetensors").read_bytes()[:20_000]
    assert b"_name_or_path" not in header and str(finished.parent).encode() not in header


def test_the_bundled_worlds_recipe_is_the_default(capsys):
    """With no argument, the bundled teacher: the run itself takes minutes, so only its checks are run here."""
    assert main(["--dry-run"]) == 0
    assert 'path = "models/snoopi-avatars-teacher.safetensors"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("student.timestep=5000", "the teacher's last timestep is 999"),
        ("loop.latent_size=7", "loop.latent_size is 7, expected a multiple of 2"),
        ("output.folder=", "output.folder"),
    ],
)
def test_a_dry_run_finds_the_errors_that_a_run_would(teacher, tmp_path, capsys, override, expected):
    assert main(arguments(teacher, tmp_path, "--dry-run", override)) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.full
def test_bf16_learning_rate_ramps_and_checkpointing_train(teacher, tmp_path):
    """In another process, since accelerate keeps its first precision for the life of a process."""
    more = ["loop.precision=bf16", "loop.warmup=2", "loop.cooldown=2", "loop.gradient_checkpointing=true"]
    train(tmp_path / "log", *arguments(teacher, tmp_path / "run", *more, "loop.iterations=4"))
    dtypes = {tensor.dtype for tensor in weights(tmp_path / "run")["student"].values()}
    assert dtypes == {torch.float32}, "no fp32 master weights"


def test_a_run_is_exported_again_with_another_alpha(finished, tmp_path):
    out = tmp_path / "again.safetensors"
    assert export([str(finished), "--out", str(out), "--alpha", "0.7"]) == 0
    again, first = read_checkpoint(out), read_checkpoint(finished / "export" / "student.safetensors")
    assert again.metadata.recommended_alpha == 0.7
    assert all(torch.equal(again.unet[name], tensor) for name, tensor in first.unet.items())
    assert export([str(tmp_path / "nothing"), "--out", str(out)]) == 2


@pytest.mark.parametrize("name", ["1_000", "café 😀", r"C:\runs\mine"])
def test_a_run_resumes_in_the_folder_that_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    text = '[teacher]\npath = "owner/name"\n[prompts]\nsource = "shapes"\n[clip]\nweight = 0\n'
    (tmp_path / name / "recipe.toml").write_text(text, encoding="utf-8")
    assert _recipe(_parser().parse_args(["--resume", name])).output.folder == name
