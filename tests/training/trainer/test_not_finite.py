"""NaN and Inf in a loss or a gradient: no weight changes, it is counted, and too many in a row stop the run."""

import shutil

import pytest
import torch
from trainer import iterations, nan_on_the_second, newest_iteration, start_distributed, tensor_files

from training.distill.step import Distillation
from training.pgsb import main
from training.trainer.run_folder.checkpoint import checkpoints, load_state

EVERY = ("output.save_every=1", "output.keep_last=20")
STUDENT = ("student.safetensors", "ema.safetensors", "optimizer_student.safetensors")
LORA = ("lora.safetensors", "optimizer_lora.safetensors")


def spoil(monkeypatch, method, value, when):
    """Make a loss NaN or Inf in the calls `when`; `value` "nan gradient" spoils the gradient only."""
    original, calls = getattr(Distillation, method), []

    def spoilt(self, *args):
        calls.append(1)
        result = original(self, *args)
        loss = result[0] if isinstance(result, tuple) else result
        if len(calls) in when:
            if "gradient" in value:
                loss = loss + 0
                loss.register_hook(lambda gradient: gradient * float(value.split()[0]))
            else:
                loss = loss + float(value)
        return (loss, *result[1:]) if isinstance(result, tuple) else loss

    monkeypatch.setattr(Distillation, method, spoilt)


def moved(folder, before, after):
    """Files of tensors that differ between two checkpoints."""
    ours, theirs = (tensor_files(folder, f"step-{number:08d}") for number in (before, after))
    return {name for name in ours if ours[name] != theirs[name]}


@pytest.mark.parametrize(
    "value",
    [
        "nan",
        pytest.param("inf", marks=pytest.mark.full),
        pytest.param("nan gradient", marks=pytest.mark.full),
        "inf gradient",
    ],
)
def test_a_non_finite_student_update_changes_nothing(tiny_run, tmp_path, monkeypatch, caplog, value):
    spoil(monkeypatch, "student_loss", value, when=[3])
    assert main(tiny_run(tmp_path, *EVERY, "loop.iterations=4")) == 0
    assert moved(tmp_path, 2, 3) == set()
    assert moved(tmp_path, 1, 2) == moved(tmp_path, 3, 4) == {*STUDENT, *LORA}
    assert "iteration 3: the student's loss or gradient is not finite; no update was made" in caplog.text
    assert load_state(checkpoints(tmp_path / "checkpoints")[-1]).counts["skipped"] == 1


@pytest.mark.parametrize("value", [pytest.param("nan", marks=pytest.mark.full), "inf gradient"])
def test_a_non_finite_lora_update_changes_only_the_student(tiny_run, tmp_path, monkeypatch, caplog, value):
    spoil(monkeypatch, "lora_teacher_loss", value, when=[3])
    assert main(tiny_run(tmp_path, *EVERY, "loop.iterations=4")) == 0
    assert moved(tmp_path, 2, 3) == set(STUDENT)
    assert moved(tmp_path, 3, 4) == {*STUDENT, *LORA}
    assert "iteration 3: the LoRA teacher's loss" in caplog.text


def test_one_bad_micro_batch_skips_the_whole_update(tiny_run, tmp_path, monkeypatch):
    spoil(monkeypatch, "student_loss", "nan", when=[6])  # the second of iteration 3
    assert main(tiny_run(tmp_path, *EVERY, "loop.micro_batch=1", "loop.iterations=3")) == 0
    assert moved(tmp_path, 2, 3) == set()


def test_many_in_a_row_end_the_run_and_are_counted_over_a_resume(tiny_run, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, "student_loss", "nan", when=[1, *range(3, 100)])
    arguments = tiny_run(tmp_path, *EVERY, "loop.max_skipped=3", "--resume")
    assert main([*arguments, "loop.iterations=4"]) == 0  # two in a row, at 3 and 4
    counts = load_state(checkpoints(tmp_path / "checkpoints")[-1]).counts
    assert counts["skipped"] == 3 and counts["skipped_in_a_row"] == 2
    assert main([*arguments, "loop.iterations=9"]) == 2
    output = capsys.readouterr().err
    assert "in 3 iterations in a row a loss or gradient was not finite (the last: the student's)" in output
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / 'step-00000004'}" in output
    assert newest_iteration(tmp_path) == 4


def test_a_non_finite_clip_loss_with_zero_gradient_is_detected(tiny_run, tmp_path, monkeypatch):
    """The gradient of relu(margin - x) is zero for a NaN."""

    class Judge:
        def loss(self, x0, prompts):
            return (x0 * 0).sum() + torch.tensor(float("nan"))

    monkeypatch.setattr("training.trainer.build._open_clip_loss", lambda *rest: Judge())
    assert main(tiny_run(tmp_path, *EVERY, "clip.weight=0.5", "loop.iterations=2")) == 0
    assert moved(tmp_path, 1, 2) == set()


def test_a_nan_in_one_process_skips_the_update_in_all(tiny_run, tmp_path):
    """Both processes do the same iterations and skip the same updates."""
    folder = tmp_path / "run"
    pair = start_distributed(tmp_path / "log", *tiny_run(folder, *EVERY, "loop.iterations=3"), alter=nan_on_the_second)
    output = [trainer.end(0) for trainer in pair]
    assert "iteration 2: the student's loss" in output[0] and iterations(folder) == [1, 2, 3]
    assert moved(folder, 1, 2) == set() and moved(folder, 2, 3) == {*STUDENT, *LORA}
    shutil.rmtree(folder)
    arguments = tiny_run(folder, *EVERY, "loop.iterations=9", "loop.max_skipped=1")
    output = [trainer.end(2) for trainer in start_distributed(tmp_path / "log", *arguments, alter=nan_on_the_second)]
    assert [text.count("error:") for text in output] == [1, 0] and "Traceback" not in "".join(output)
    assert newest_iteration(folder) == 1
