"""Runs that are killed, stopped and resumed: what comes out is what an uninterrupted run gives, bit for bit."""

import random
import re
import signal
import time

import pytest
from trainer import Trainer, assert_same, iterations, newest, train

SAVE_EVERY, KILLS = 2, 25


def latest(folder, since):
    """The last iteration that was logged after a moment."""
    metrics = folder / "metrics.jsonl"
    return max([0, *iterations(folder)]) if metrics.exists() and metrics.stat().st_mtime > since else 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_25_times_the_run_ends_as_one_that_never_was(tiny_run, tmp_path):
    moments, folder = random.Random(0), tmp_path / "run"
    saving = folder / "checkpoints"
    hit_a_save = resumed = 0
    arguments = tiny_run(folder, f"output.save_every={SAVE_EVERY}", "loop.iterations=1000", "--resume")
    for life in range(KILLS):
        before = newest(folder)
        trainer = Trainer(tmp_path / f"{life}.log", *arguments, slow=0.03)
        if life % 5 == 4:  # perhaps before training has begun
            time.sleep(moments.uniform(0, 4))
        else:
            trainer.wait_for(lambda t=trainer: re.search("resumed at|starting from the beginning", t.said()))
            started = time.time()
        if life % 5 < 2:
            trainer.wait_for(lambda: list(saving.glob(".step-*.tmp")))
            time.sleep(moments.uniform(0, 0.2))
        elif life % 5 < 4:
            wished = before + moments.randint(1, 4)
            trainer.wait_for(lambda at=wished, since=started: latest(folder, since) >= at)
            time.sleep(moments.uniform(0, 0.3))
        trainer.signal(signal.SIGKILL)
        said = trainer.end(-signal.SIGKILL)
        hit_a_save += bool(list(saving.glob(".step-*.tmp")))
        if found := re.search(r"resumed at iteration (\d+)", said):
            resumed += 1
            assert int(found[1]) == before, "it did not go on from the newest checkpoint"
        done = max([before, *iterations(folder)])
        assert done - newest(folder) <= SAVE_EVERY, "more than the iterations since the last save are lost"
    last = f"loop.iterations={newest(folder) + 3}"
    train(tmp_path / "last.log", *arguments, last)
    train(tmp_path / "never.log", *tiny_run(tmp_path / "never", "output.save_every=1000", last))
    assert_same(folder, tmp_path / "never")
    assert iterations(folder) == iterations(tmp_path / "never")
    assert not list(saving.glob(".*")) and not list(saving.glob("damaged*"))
    print(f"{KILLS} kills, {hit_a_save} inside a save, {resumed} resumes, {newest(folder)} iterations")
    assert hit_a_save >= 8 and resumed >= 10
