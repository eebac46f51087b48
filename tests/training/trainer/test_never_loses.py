"""Killed and resumed runs end with the result of an uninterrupted run, bit for bit."""

import random
import re
import signal
from functools import partial

import pytest
from effort import effort
from trainer import Trainer, assert_same, iterations, newest_iteration, paused_after, signalled_in_save, train

SAVE_EVERY = 2
KILLS = effort(gate=3, full=12)


def kill(log, arguments, folder, life, choose):
    """Kill a run in a save, in an iteration and before the first one, in turn."""
    if life % 3 == 0:
        at = choose.randint(1, 7)  # a save flushes seven files: five with tensors and two others
        trainer = Trainer(log, *arguments, alter=partial(signalled_in_save, folder, signal.SIGKILL, at))
    elif life % 3 == 1:
        trainer = Trainer(log, *arguments, alter=partial(paused_after, choose.randint(1, 4)))
        trainer.wait_for_pause()
        trainer.signal(signal.SIGKILL)
    else:
        trainer = Trainer(log, *arguments)
        moment = choose.choice(["loading", "resumed at|starting from the beginning"])
        trainer.wait_for(lambda: re.search(moment, trainer.output()))
        trainer.signal(signal.SIGKILL)
    return trainer.end(-signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.scaled
@pytest.mark.timeout(3600)
def test_a_run_killed_many_times_equals_an_uninterrupted_one(tiny_run, tmp_path):
    choose, folder = random.Random(0), tmp_path / "run"
    saving = folder / "checkpoints"
    hit_a_save = resumed = 0
    arguments = tiny_run(folder, f"output.save_every={SAVE_EVERY}", "loop.iterations=1000", "--resume")
    for life in range(KILLS):
        before = newest_iteration(folder)
        output = kill(tmp_path / f"{life}.log", arguments, folder, life, choose)
        hit_a_save += bool(list(saving.glob(".step-*.tmp")))
        if found := re.search(r"resumed at iteration (\d+)", output):
            resumed += 1
            assert int(found[1]) == before, "it did not resume from the newest checkpoint"
        done = max([before, *iterations(folder)])
        assert done - newest_iteration(folder) <= SAVE_EVERY, "more than the iterations since the last save are lost"
    last = f"loop.iterations={newest_iteration(folder) + 3}"
    train(tmp_path / "last.log", *arguments, last)
    train(tmp_path / "uninterrupted.log", *tiny_run(tmp_path / "uninterrupted", "output.save_every=1000", last))
    assert_same(folder, tmp_path / "uninterrupted")
    assert iterations(folder) == iterations(tmp_path / "uninterrupted")
    assert not list(saving.glob(".*")) and not list(saving.glob("damaged*"))
    print(f"{KILLS} kills, {hit_a_save} inside a save, {resumed} resumes, {newest_iteration(folder)} iterations")
    assert hit_a_save == KILLS // 3 and resumed >= KILLS // 3
