"""Resuming a run: from whole checkpoints only, with its own recipe and teacher, in a folder that no other run uses."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_backbone
from trainer import Trainer, assert_same, iterations, newest_iteration, tensor_files

from snoopi_core.formats.checkpoint import read_metadata
from training.config import load_recipe
from training.export import main as export
from training.pgsb import main
from training.trainer.export import export_backbone
from training.trainer.run_folder.checkpoint import best_checkpoint, check_intact, checkpoints, load_state, newest_intact

IN_THE_GATE = (("state.json", "cut short"), ("sha256sums.txt", "missing"))
EVERY = ("output.save_every=1", "output.keep_last=3")


@pytest.fixture(scope="module")
def begun(tiny_run, tmp_path_factory):
    """A run with checkpoints at 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("begun")
    assert main(tiny_run(folder, *EVERY, "loop.iterations=3")) == 0
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tiny_run, tmp_path_factory):
    """A run to iteration 4 without a stop."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(tiny_run(folder, "loop.iterations=4")) == 0
    return folder


@pytest.fixture
def run(begun, tmp_path):
    """A copy of `begun` that a test may damage."""
    return shutil.copytree(begun, tmp_path / "run")


def damage(path, how):
    if how == "missing":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        path.write_text('{"epoch": 3, "model": "another"}', encoding="utf-8")
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["missing", "cut short", "empty", "one bit"])
@pytest.mark.parametrize("name", ["student", "ema", "lora", "optimizer_student", "optimizer_lora"])
def test_damage_to_any_tensor_is_detected(run, name, how):
    last = checkpoints(run / "checkpoints")[-1]
    damage(last / f"{name}.safetensors", how)
    with pytest.raises(ValueError, match=f"{name}.safetensors"):
        check_intact(last)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=() if (name, how) in IN_THE_GATE else pytest.mark.full)
        for name in ("state.json", "sha256sums.txt")
        for how in ("missing", "cut short", "empty", "one bit", "foreign")
    ],
)
def test_a_checkpoint_without_its_records_is_set_aside(tiny_run, run, uninterrupted, caplog, name, how):
    caplog.set_level("INFO")
    damage(run / "checkpoints" / "step-00000003" / name, how)
    assert main(tiny_run(run, *EVERY, "loop.iterations=4", "--resume")) == 0
    assert "step-00000003 is damaged" in caplog.text and "was renamed to damaged-step-00000003" in caplog.text
    assert "resumed at iteration 2" in caplog.text
    assert_same(run, uninterrupted)


def test_leftovers_of_a_killed_save_are_removed(tiny_run, run, caplog):
    left = run / "checkpoints" / ".step-00000004.tmp"
    shutil.copytree(run / "checkpoints" / "step-00000003", left)
    (left / "state.json").unlink()
    assert main(tiny_run(run, *EVERY, "loop.iterations=3", "--resume")) == 0
    assert not left.exists() and "damaged" not in caplog.text and newest_iteration(run) == 3


def test_a_run_with_only_damaged_checkpoints_is_not_started_anew(tiny_run, run, capsys):
    for path in checkpoints(run / "checkpoints"):
        damage(path / "student.safetensors", "one bit")
    for _ in range(2):  # a cluster's scheduler would try again
        assert main(tiny_run(run, *EVERY, "--resume")) == 2
        output = capsys.readouterr().err
        assert "all checkpoints in" in output and "damaged-step-00000001, damaged-step-00000002" in output
        assert "start from the beginning without --resume" in output
    assert not checkpoints(run / "checkpoints")


def test_reading_a_run_changes_nothing_in_it(run):
    """An export reads the folder while the run may be saving."""
    damage(run / "checkpoints" / "step-00000003" / "lora.safetensors", "one bit")
    (run / "checkpoints" / ".step-00000004.tmp").mkdir()
    before = sorted(run.rglob("*"))
    assert newest_intact(run / "checkpoints").name == "step-00000002"
    assert sorted(run.rglob("*")) == before


def test_a_running_mean_can_be_switched_on_and_off(tiny_run, run, caplog):
    """Switched on, it starts from the current student."""
    assert main(tiny_run(run, *EVERY, "student.ema_decay=0", "loop.iterations=4", "--resume", "--accept-changes")) == 0
    assert "student.ema_decay: 0.99 -> 0.0" in caplog.text
    dropped = load_state(checkpoints(run / "checkpoints")[-1])
    assert "ema" not in dropped.networks
    more = ["student.ema_decay=0.5", "loop.iterations=5", "--resume", "--accept-changes"]
    assert main(tiny_run(run, *EVERY, *more)) == 0
    taken = load_state(checkpoints(run / "checkpoints")[-1])
    decay = 1 / 10  # decay of the first update, as it rises to 0.5
    for name, mean in taken.networks["ema"].items():
        expected = decay * dropped.networks["student"][name] + (1 - decay) * taken.networks["student"][name]
        assert torch.allclose(mean, expected, rtol=1e-6, atol=1e-9), name
    assert taken.counts["averaged"] == 1


def test_a_changed_recipe_is_refused_with_the_difference_and_takes_effect_when_accepted(tiny_run, begun, run, capsys):
    # a learning rate too small to move any fp32 weight of the student
    changes = ["student.learning_rate=1e-30", "lora.learning_rate=1e-5", "guidance.kappa_min=2", "guidance.kappa_max=2"]
    assert main(tiny_run(run, *EVERY, *changes, "loop.weight_decay=0", "loop.iterations=4", "--resume")) == 2
    output = capsys.readouterr().err
    for line in ("student.learning_rate: 0.0004 -> 1e-30", "guidance.kappa_max: 4.0 -> 2.0", "weight_decay: 0.0001 ->"):
        assert line in output
    assert "--accept-changes" in output and newest_iteration(run) == 3
    accepted = [*changes, "loop.weight_decay=0", "loop.iterations=4", "--resume", "--accept-changes"]
    assert main(tiny_run(run, *EVERY, *accepted)) == 0
    state = load_state(checkpoints(run / "checkpoints")[-1])
    before = tensor_files(begun)
    after = tensor_files(run)
    assert after["student.safetensors"] == before["student.safetensors"], "the old learning rate or decay is used"
    assert after["lora.safetensors"] != before["lora.safetensors"]
    assert {group["weight_decay"] for group in state.optimizers["lora"].settings["param_groups"]} == {0}
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["iteration"] == 4 and last["kappa"] == 2
    assert main(tiny_run(run, *EVERY, *changes, "loop.weight_decay=0", "loop.iterations=4", "--resume")) == 0


def test_a_run_of_an_older_version_resumes_with_defaults_for_new_settings(tiny_run, run, begun, capsys):
    state = checkpoints(run / "checkpoints")[-1] / "state.json"
    content = json.loads(state.read_text(encoding="utf-8"))
    del content["recipe"]["guidance"]["kappa_per"], content["recipe"]["student"]["ema_decay"]
    state.write_text(json.dumps(content), encoding="utf-8")
    assert main(tiny_run(run, *EVERY, "--resume")) == 2
    output = capsys.readouterr().err
    assert "student.ema_decay: 0.9999 -> 0.99" in output and "kappa_per" not in output


@pytest.mark.parametrize("change", ["lora.rank=8", "lora.targets=all", "student.train=lora"])
def test_changes_that_no_checkpoint_fits_are_refused_even_when_accepted(tiny_run, run, capsys, change):
    assert main(tiny_run(run, *EVERY, change, "--resume", "--accept-changes")) == 2
    assert f"{change.partition('=')[0]}: " in capsys.readouterr().err
    assert newest_iteration(run) == 3


def test_another_teacher_is_refused(tiny_run, run, tmp_path, capsys):
    other = export_backbone(
        tmp_path / "other.safetensors", tiny_backbone("v_prediction", seed=1), title="other", role="teacher"
    )
    assert main(tiny_run(run, *EVERY, f"teacher.path={other}", "--resume", "--accept-changes")) == 2
    assert "is not the one that this run was started with" in capsys.readouterr().err


def test_a_moved_run_resumes_by_its_folder_only(run, tmp_path, uninterrupted, capsys, monkeypatch):
    moved = run.rename(tmp_path / "1_000")  # for TOML, a number
    monkeypatch.chdir(tmp_path)
    assert main(["--cpu", "--resume", moved.name, "loop.iterations=4"]) == 0
    assert not run.exists() and newest_iteration(moved) == 4
    assert_same(moved, uninterrupted)
    assert load_recipe(str(moved / "recipe.toml")).output.folder == moved.name
    assert main(["--cpu", "--resume", str(moved), "--recipe", "shapes"]) == 2
    assert "give only one" in capsys.readouterr().err
    assert main(["--cpu", "--resume", str(tmp_path)]) == 2
    assert "there is no run" in capsys.readouterr().err


def test_the_position_of_other_prompts_is_not_taken_over(tiny_run, run, caplog):
    more = ["prompts.source=shapes", "loop.iterations=4", "--resume", "--accept-changes"]
    assert main(tiny_run(run, *EVERY, *more, "loop.threads=1")) == 0
    assert "it starts from its beginning" in caplog.text and newest_iteration(run) == 4


def test_a_second_run_on_the_same_folder_is_refused_until_the_first_is_gone(tiny_run, tmp_path, capsys):
    folder = tmp_path / "run"
    first = Trainer(tmp_path / "log", *tiny_run(folder, *EVERY, "loop.iterations=1000"))
    first.wait_for(lambda: iterations(folder))
    assert main(tiny_run(folder, *EVERY, "loop.iterations=1000", "--resume")) == 2
    assert f"another process is training in {folder}" in capsys.readouterr().err
    first.process.kill()
    first.end(-9)
    done = newest_iteration(folder)
    assert main(tiny_run(folder, *EVERY, f"loop.iterations={done + 1}", "--resume")) == 0
    assert newest_iteration(folder) == done + 1


def test_fewer_iterations_than_already_done_are_refused(tiny_run, run, capsys):
    before = (run / "recipe.toml").read_bytes()
    assert main(tiny_run(run, *EVERY, "loop.iterations=2", "--resume")) == 2
    assert "has done 3; give at least 3, or export its student" in capsys.readouterr().err
    assert newest_iteration(run) == 3 and (run / "recipe.toml").read_bytes() == before


class _Compared:
    """Replaces `draw_samples`: sets given distances and diversities by iteration."""

    def __init__(self, found):
        self.found = found

    def __call__(self, run):
        names = ("sample_distance", "sample_diversity")
        run.compared = dict(zip(names, self.found.get(run.iteration, ()), strict=False))


def test_the_newest_and_the_best_are_kept(tiny_run, tmp_path, monkeypatch, capsys):
    """A resume keeps what was measured; each is valid for one checkpoint only. Step 5 is nearest, but collapsed."""
    measured = _Compared({2: (0.5, 1.0), 4: (0.25, 0.9), 5: (0.05, 0.3)})
    monkeypatch.setattr("training.trainer.trainer.Trainer.draw_samples", lambda run: measured(run))
    arguments = tiny_run(tmp_path, "output.save_every=1", "output.keep_last=2", "output.sample_every=1", "--resume")
    assert main([*arguments, "loop.iterations=3"]) == 0
    saved = tmp_path / "checkpoints"
    assert [path.name for path in checkpoints(saved)] == ["step-00000002", "step-00000003"]
    assert main([*arguments, "loop.iterations=7"]) == 0
    assert [path.name for path in checkpoints(saved)] == [f"step-{n:08d}" for n in (4, 6, 7)]
    assert best_checkpoint(saved).name == "step-00000004"
    path = tmp_path / "out.safetensors"
    for which, step in (
        ("best", 4),
        ("latest", 7),
        ("step-00000006", 6),
        (os.path.relpath(saved / "step-00000004"), 4),
    ):
        assert export([str(tmp_path), "--checkpoint", which, "--out", str(path)]) == 0
        assert read_metadata(path).provenance.step == step
    assert export([str(tmp_path), "--checkpoint", "step-00000005", "--out", str(path)]) == 2
    assert "no usable checkpoint 'step-00000005'; available: step-00000004, step-00000006" in capsys.readouterr().err
    elsewhere = shutil.copytree(saved / "step-00000006", tmp_path / "other" / "step-00000006")  # perhaps another run's
    assert export([str(tmp_path), "--checkpoint", str(elsewhere), "--out", str(path)]) == 2
    shutil.rmtree(saved / "step-00000004")
    assert best_checkpoint(saved) is None
    assert main([*arguments, "loop.iterations=8", "output.keep_best=false"]) == 0
    assert [path.name for path in checkpoints(saved)] == ["step-00000007", "step-00000008"]


def test_the_best_is_the_newest_that_is_as_good(tiny_run, tmp_path, monkeypatch, capsys):
    """A later one that is as good has learnt more; a collapsed one is far behind, and a damaged one is skipped."""
    measured = _Compared({1: (0.25, 0.9), 2: (0.3, 0.9), 3: (0.1, 0.2)})
    monkeypatch.setattr("training.trainer.trainer.Trainer.draw_samples", lambda run: measured(run))
    every = ("output.save_every=1", "output.sample_every=1", "loop.iterations=3")
    assert main(tiny_run(tmp_path, *every)) == 0
    saved = tmp_path / "checkpoints"
    assert best_checkpoint(saved).name == "step-00000002"
    out = str(tmp_path / "student.safetensors")
    assert export([str(tmp_path), "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "better than the latest by more than 0.1: distance 0.30" in shown
    assert "recommended alpha 1 (from the recipe)" in shown
    assert export([str(saved / "step-00000003"), "--out", out, "--alpha", "0.4"]) == 0
    shown = capsys.readouterr().out
    assert "better" not in shown and "recommended alpha 0.4\n" in shown
    with (saved / "step-00000002" / "state.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert best_checkpoint(saved).name == "step-00000001"


def test_a_distance_belongs_to_the_state_it_was_measured_on(tiny_run, tmp_path, monkeypatch):
    measured = _Compared({2: (0.5, 1.0)})
    monkeypatch.setattr("training.trainer.trainer.Trainer.draw_samples", lambda run: measured(run))
    assert main(tiny_run(tmp_path, "output.save_every=3", "output.sample_every=2", "loop.iterations=4")) == 0
    assert load_state(tmp_path / "checkpoints" / "step-00000003").distance is None


def test_a_checkpoint_can_be_checked_by_other_programs(run):
    last = checkpoints(run / "checkpoints")[-1]
    names = [line.split("  ")[1] for line in (last / "sha256sums.txt").read_text(encoding="utf-8").splitlines()]
    assert sorted(names) == sorted(path.name for path in last.iterdir() if path.name != "sha256sums.txt")
    assert {name.rpartition(".")[2] for name in load_file(last / "optimizer_student.safetensors")} == {
        *("step", "exp_avg", "exp_avg_sq")
    }
    save_file({}, last / "unknown.safetensors")  # other files are ignored
    assert check_intact(last)["iteration"] == 3
