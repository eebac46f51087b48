"""On a full disk, a run continues if it can, names what it could not write, and leaves no partial file."""

from functools import partial

import pytest
from small_disk import SmallDisk
from trainer import (
    Trainer,
    assert_same,
    iterations,
    newest_iteration,
    paused_after,
    paused_before_export,
    start_distributed,
    train,
    with_a_full_log,
)

from training.trainer.run_folder.checkpoint import check_intact, checkpoints, newest_intact

LAST = 7


@pytest.fixture(scope="module")
def uninterrupted(tiny_run, tmp_path_factory):
    """A run on a disk with enough space."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder / "log", *tiny_run(folder, f"loop.iterations={LAST}", "output.save_every=1000"))
    return folder


@pytest.fixture
def disk(tmp_path):
    with SmallDisk(tmp_path / "disk", megabytes=100) as disk:
        yield disk


def nothing_half_written(folder):
    hidden = [path.name for path in folder.rglob("*.tmp")]
    return not hidden and all(check_intact(path) for path in checkpoints(folder / "checkpoints"))


def test_a_run_survives_a_full_disk(tiny_run, uninterrupted, tmp_path, disk):
    """The disk is full after the first checkpoint, for metrics and samples too, and has space again before the last."""
    folder = disk.folder / "run"
    more = [
        "output.save_every=2",
        "output.keep_last=2",
        "output.sample_every=1",
        "output.sample_seeds=2",
        'output.sample_prompts=["a ring", "two"]',
    ]
    arguments = tiny_run(folder, *more, f"loop.iterations={LAST}", 'output.trackers=["tensorboard"]')
    trainer = Trainer(tmp_path / "log", *arguments, alter=partial(paused_after, 2, 5))
    trainer.wait_for_pause()
    assert newest_iteration(folder) == 2
    disk.fill(trainer.process.pid)
    trainer.unpause()
    trainer.wait_for_pause()
    assert "no checkpoint could be written" in trainer.output()
    assert newest_iteration(folder) == 2 and nothing_half_written(folder)
    disk.free(trainer.process.pid)
    trainer.unpause()
    output = trainer.end(0)
    assert (
        "the last good checkpoint is " in output
        and "step-00000002" in output
        and "tries again in 2 iterations" in output
    )
    assert "metrics or samples cannot be written" in output or not disk.mounted
    assert iterations(folder)[-1] == LAST
    assert_same(folder, uninterrupted)


def test_a_failed_last_save_is_an_error_that_names_the_last_good_checkpoint(tiny_run, uninterrupted, tmp_path, disk):
    folder = disk.folder / "run"
    arguments = tiny_run(folder, "output.save_every=4", f"loop.iterations={LAST}")
    trainer = Trainer(tmp_path / "log", *arguments, alter=partial(paused_after, 4))
    trainer.wait_for_pause()
    assert newest_iteration(folder) == 4
    disk.fill(trainer.process.pid)
    trainer.unpause()
    output = trainer.end(2)
    assert f"error: iteration {LAST}: no checkpoint could be written" in output and "Traceback" not in output
    assert "the last good checkpoint is " in output and "step-00000004" in output
    assert newest_iteration(folder) == 4 and nothing_half_written(folder)
    disk.free(0)
    train(tmp_path / "again", *arguments, "--resume")
    assert_same(folder, uninterrupted)


def test_an_export_that_fails_is_an_error_and_leaves_no_file(tiny_run, tmp_path, disk):
    folder = disk.folder / "run"
    arguments = tiny_run(folder, "loop.iterations=1")
    trainer = Trainer(tmp_path / "log", *arguments, alter=paused_before_export)
    trainer.wait_for_pause()
    assert newest_iteration(folder) == 1
    disk.fill(trainer.process.pid)
    trainer.unpause()
    output = trainer.end(2)
    assert "student.safetensors could not be written" in output and "Traceback" not in output
    assert f"the last good checkpoint is {newest_intact(folder / 'checkpoints')}" in output
    assert not list(folder.glob("export/*")) and not list(folder.glob("export/.*"))
    assert iterations(folder) == [1]


def test_a_log_on_a_full_disk_leaves_no_process_waiting(tiny_run, tmp_path):
    folder = tmp_path / "run"
    for trainer in start_distributed(tmp_path / "log", *tiny_run(folder, "loop.iterations=3"), alter=with_a_full_log):
        trainer.end(0)
    assert newest_iteration(folder) == 3 and iterations(folder) == [1, 2, 3]
