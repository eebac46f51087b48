"""output.background_save: the same files as without it, whatever the training does while they are written."""

import json
import os
import signal
import threading
from functools import partial

import pytest
from trainer import Trainer, assert_same, newest_iteration, signalled_in_save, tensor_files, train

from training.distill.step import Distillation
from training.pgsb import main
from training.trainer import trainer
from training.trainer.run_folder.checkpoint import check_intact, checkpoints
from training.trainer.run_folder.write import save_state

TIMEOUT = 600  # of a hanging thread


def in_background(tiny_run, folder, *more):
    return tiny_run(folder, "output.background_save=true", "output.save_every=2", "output.keep_last=9", *more)


def state(folder, name):
    content = json.loads((folder / "checkpoints" / name / "state.json").read_text(encoding="utf-8"))
    content["recipe"].pop("output")
    return content


def test_what_is_trained_while_a_checkpoint_is_written_is_not_in_it(tiny_run, tmp_path, monkeypatch):
    """The checkpoint of iteration 2 is written only when iteration 3 is done."""
    run, plain = tmp_path / "run", tmp_path / "plain"
    iterate, done = trainer.Trainer._iterate, threading.Event()

    def counted(self):
        iterate(self)
        if self.iteration == 3:
            done.set()

    def late(*arguments):
        assert done.wait(TIMEOUT)
        return save_state(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_iterate", counted)
        patch.setattr(trainer, "save_state", late)
        assert main(in_background(tiny_run, run, "loop.iterations=3")) == 0
    assert main(tiny_run(plain, "output.save_every=2", "output.keep_last=9", "loop.iterations=3")) == 0
    names = [path.name for path in checkpoints(run / "checkpoints")]
    assert names == ["step-00000002", "step-00000003"]
    for name in names:
        check_intact(run / "checkpoints" / name)
        assert tensor_files(run, name) == tensor_files(plain, name) and state(run, name) == state(plain, name)


@pytest.mark.full
def test_a_stop_waits_for_the_checkpoint_that_is_being_written(tiny_run, tmp_path, monkeypatch):
    """SIGTERM comes while the first is written; it is finished when the run, at its end, waits for it."""
    iterate, finish, waiting = trainer.Trainer._iterate, trainer.Trainer._finish_saving, threading.Event()

    def iterate_and_stop(self):
        iterate(self)
        if self.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def finish_saving(self):
        if self.iteration == 3:
            waiting.set()
        finish(self)

    def late(*arguments):
        assert waiting.wait(TIMEOUT)
        return save_state(*arguments)

    monkeypatch.setattr(trainer.Trainer, "_iterate", iterate_and_stop)
    monkeypatch.setattr(trainer.Trainer, "_finish_saving", finish_saving)
    monkeypatch.setattr(trainer, "save_state", late)
    assert main(in_background(tiny_run, tmp_path, "loop.iterations=1000")) == 143
    found = checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in found] == ["step-00000002", "step-00000003"] and all(map(check_intact, found))


@pytest.mark.full
def test_errors_of_the_thread_are_those_of_a_save(tiny_run, tmp_path, monkeypatch, capsys, caplog):
    """A full disk is a warning, and an error in the last save; what is not foreseen ends the run at the next save."""

    def full(folder, state, recipe):
        raise OSError("no space left")

    monkeypatch.setattr(trainer, "save_state", full)
    assert main(in_background(tiny_run, tmp_path, "loop.iterations=5")) == 2
    assert "tries again in 2 iterations" in caplog.text and "iteration 2: no checkpoint could be written" in caplog.text
    assert "iteration 5: no checkpoint could be written" in capsys.readouterr().err
    monkeypatch.setattr(trainer, "save_state", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(in_background(tiny_run, tmp_path / "other", "loop.iterations=5"))


@pytest.mark.full
def test_a_run_that_gives_up_names_the_checkpoint_that_was_being_written(tiny_run, tmp_path, monkeypatch, capsys):
    """It deletes the one before it, so that one must not be named."""
    losses, gives_up = iter([0.0] * 4 + [float("nan")] * 9), threading.Event()
    original, give_up = Distillation.student_loss, trainer.Trainer._give_up

    def student_loss(self, *arguments):
        loss, gap = original(self, *arguments)
        return loss + next(losses), gap

    def giving_up(self, skipped):
        gives_up.set()
        give_up(self, skipped)

    def late(folder, state, recipe):
        assert state.iteration == 2 or gives_up.wait(TIMEOUT)
        return save_state(folder, state, recipe)

    monkeypatch.setattr(Distillation, "student_loss", student_loss)
    monkeypatch.setattr(trainer.Trainer, "_give_up", giving_up)
    monkeypatch.setattr(trainer, "save_state", late)
    settings = ("output.keep_last=1", "loop.max_skipped=1", "loop.iterations=9")
    assert main(in_background(tiny_run, tmp_path, *settings)) == 2
    [left] = checkpoints(tmp_path / "checkpoints")
    assert left.name == "step-00000004" and f"the last good checkpoint is {left}" in capsys.readouterr().err


@pytest.mark.full
def test_killed_while_writing_leaves_the_checkpoint_before(tiny_run, tmp_path):
    folder = tmp_path / "run"
    arguments = in_background(tiny_run, folder, "--resume")
    second = partial(signalled_in_save, folder, signal.SIGKILL, 12)  # a save flushes seven files and their folder
    Trainer(tmp_path / "log", *arguments, "loop.iterations=1000", alter=second).end(-signal.SIGKILL)
    assert newest_iteration(folder) == 2 and list((folder / "checkpoints").glob(".step-*.tmp"))
    train(tmp_path / "again", *arguments, "loop.iterations=5")
    train(tmp_path / "plain.log", *tiny_run(tmp_path / "plain", "loop.iterations=5"))
    assert_same(folder, tmp_path / "plain")
