"""SIGTERM and Ctrl-C: one process or all of them save and end, and a resumed run continues bit for bit."""

import os
import re
import signal
import subprocess
import sys
from functools import partial

import pytest
from processes import TIMEOUT
from safetensors.torch import load_file
from trainer import (
    Trainer,
    assert_same,
    iterations,
    newest_iteration,
    paused_after,
    signalled_in_save,
    start_distributed,
    train,
)

from training.distill.step import Distillation
from training.pgsb import main
from training.trainer.monitor.callbacks import Monitor
from training.trainer.run_folder.checkpoint import checkpoints

LAST = 6


@pytest.fixture(scope="module")
def uninterrupted(tiny_run, tmp_path_factory):
    """A run that was not stopped."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder / "log", *tiny_run(folder, f"loop.iterations={LAST}"))
    return folder


def at_iteration(folder, number):
    return lambda: iterations(folder)[-1:] >= [number]


def assert_within_rounding(folder, other):
    """Adam's first steps depend on the sign of a gradient only, so rounding can change some weights by a whole step."""
    assert newest_iteration(folder) == newest_iteration(other)
    place, where = (checkpoints(run / "checkpoints")[-1] for run in (folder, other))
    for name in ("student", "ema", "lora"):
        ours, theirs = load_file(place / f"{name}.safetensors"), load_file(where / f"{name}.safetensors")
        error = sum((ours[key] - theirs[key]).double().square().sum() for key in ours)
        assert (error / sum(value.double().square().sum() for value in theirs.values())) ** 0.5 <= 1e-4, name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed_equals_never_stopped(tiny_run, uninterrupted, tmp_path, number, code):
    folder = tmp_path / "run"
    arguments = tiny_run(folder, "loop.iterations=1000", "output.save_every=1000")
    trainer = Trainer(tmp_path / "log", *arguments, alter=partial(paused_after, 2))
    trainer.wait_for_pause()
    trainer.signal(number)
    trainer.unpause()
    output = trainer.end(code)
    assert f"continue with --resume {folder}" in output and "Traceback" not in output
    assert [newest_iteration(folder)] == iterations(folder)[-1:], "finished iterations were not saved"
    train(tmp_path / "log", "--cpu", "--resume", str(folder), f"loop.iterations={LAST}")
    assert_same(folder, uninterrupted)


@pytest.mark.parametrize(
    "where", [(Distillation, "lora_teacher_loss"), (Monitor, "after_samples")], ids=["between updates", "while drawing"]
)
def test_a_signal_within_an_iteration_waits_for_its_end(tiny_run, uninterrupted, tmp_path, monkeypatch, where):
    """Half of the updates are done, or the student holds the averaged weights for sampling."""
    original, before = getattr(*where), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(*where, interrupted)
        assert main(tiny_run(tmp_path, "loop.iterations=1000", "output.sample_every=2")) == 130
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert newest_iteration(tmp_path) == (1 if where[0] is Distillation else 2)
    assert main(tiny_run(tmp_path, f"loop.iterations={LAST}", "--resume")) == 0
    assert_same(tmp_path, uninterrupted)


def test_a_run_stopped_before_its_first_update_can_be_resumed(tiny_run, uninterrupted, tmp_path, monkeypatch):
    def interrupted(self, done):
        start(self, done)
        os.kill(os.getpid(), signal.SIGTERM)

    start = Monitor.start
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "start", interrupted)
        assert main(tiny_run(tmp_path, "loop.iterations=1000")) == 143
    assert newest_iteration(tmp_path) == 0 and checkpoints(tmp_path / "checkpoints")
    assert main(tiny_run(tmp_path, f"loop.iterations={LAST}", "--resume")) == 0
    assert_same(tmp_path, uninterrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_second_ctrl_c_ends_a_run_at_once_but_not_a_second_sigterm(tiny_run, tmp_path, number, code):
    folder = tmp_path / "run"
    alter = partial(signalled_in_save, folder, number, 3)
    trainer = Trainer(tmp_path / "log", *tiny_run(folder, "loop.iterations=1000"), alter=alter)
    trainer.wait_for(at_iteration(folder, 1))
    trainer.signal(number)
    trainer.end(code)
    assert len(checkpoints(folder / "checkpoints")) == (code == 143)


def test_a_signal_to_one_process_stops_all_and_another_number_of_processes_resumes(tiny_run, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    more = tiny_run(folder, "--resume", "output.save_every=1000")
    train(tmp_path / "one", *more, "loop.iterations=1")
    pair = start_distributed(tmp_path / "two", *more, "loop.iterations=1000", alter=partial(paused_after, 2))
    for trainer in pair:
        trainer.wait_for_pause()
    pair[1].signal(signal.SIGTERM)
    for trainer in pair:
        trainer.unpause()
    output = [trainer.end(143) for trainer in pair]
    assert "resumed at iteration 1" in output[0]
    assert [path.name for path in checkpoints(folder / "checkpoints")] == ["step-00000001", "step-00000004"]
    train(tmp_path / "one", *more, f"loop.iterations={LAST}", "loop.micro_batch=1")
    assert_within_rounding(folder, uninterrupted)


@pytest.mark.full
@pytest.mark.slow
def test_torchrun_passes_sigterm_on(tiny_run, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "training.pgsb", *tiny_run(folder, "loop.iterations=1000", "output.save_every=1000")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ACCELERATE_USE_CPU": "true"}
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        launcher = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        reached = at_iteration(folder, 2)
        while not reached():
            with pytest.raises(subprocess.TimeoutExpired):
                launcher.wait(0.05)
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(TIMEOUT)
    finally:
        launcher.kill()
    output = (tmp_path / "log").read_text(encoding="utf-8")
    saved = re.findall(r"saved .*step-(\d+)", output)
    assert len(saved) == 1 and int(saved[0]) == newest_iteration(folder) == iterations(folder)[-1], output[-2000:]
