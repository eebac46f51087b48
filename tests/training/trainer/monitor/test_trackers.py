"""TensorBoard's data of a run, read with its own reader."""

import os
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from small_disk import SmallDisk
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, TENSORS, EventAccumulator

from training.config import RecipeError, load_recipe
from training.trainer.monitor.trackers import Trackers

FIGURES = ("vsd", "x0_std", "gap_t20", "sample_distance", "eval_clip", "eval_clip_low")


def recipe(*more):
    return load_recipe("shapes", list(more))


def session(folder, done, last, value):
    """Log iterations done + 1 to last, with all metrics equal to `value`."""
    found = Trackers(folder, recipe(), done)
    for iteration in range(done + 1, last + 1):
        found.log(dict.fromkeys(FIGURES, value), iteration)
    found.log_image("samples/grid", np.full((8, 16, 3), 10 * value, np.uint8), last)
    found.log_text("warnings", f"warning <{value}>", last)
    found.close()


def read(folder):
    shown = EventAccumulator(str(folder / "tensorboard" / "snoopi"), {SCALARS: 0, IMAGES: 0, TENSORS: 0})
    shown.Reload()
    return shown


def test_tensorboard_shows_figures_by_group_and_grids(tmp_path):
    session(tmp_path, 0, 3, 2.0)
    shown = read(tmp_path)
    assert set(shown.Tags()["scalars"]) == {
        "train/vsd",
        "x0/x0_std",
        "gap by timestep/gap_t20",
        "samples/sample_distance",
        "evaluation/eval_clip",
        "evaluation intervals/eval_clip_low",
    }
    assert [(event.step, event.value) for event in shown.Scalars("train/vsd")] == [(1, 2.0), (2, 2.0), (3, 2.0)]
    (image,) = shown.Images("samples/grid")
    assert (image.step, image.height, image.width) == (3, 8, 16)
    text = shown.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    [guidance]\n" in text and "kappa_max" in text


def test_a_resumed_run_hides_repeated_iterations(tmp_path):
    """Killed after 10, with the last checkpoint at 4: iterations 5 to 10 are repeated, and shown once."""
    session(tmp_path, 0, 10, 1.0)
    session(tmp_path, 4, 8, 2.0)
    shown = read(tmp_path)
    found = {event.step: event.value for event in shown.Scalars("train/vsd")}
    assert found == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 2, 8: 2}
    assert len(shown.Scalars("train/vsd")) == 8
    assert [image.step for image in shown.Images("samples/grid")] == [8]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_stops_the_tracker_and_not_the_run(tmp_path, caplog):
    """TensorBoard's writer does not recover; a resumed run has a new one, and earlier data stay visible."""
    with SmallDisk(tmp_path / "disk", megabytes=20) as disk:
        found = Trackers(disk.folder, recipe(), 0)
        found.log({"vsd": 1.0}, 1)
        found.trackers[0].writer.flush()  # data in memory may be lost when the disk is full
        disk.fill(os.getpid())
        for iteration in range(2, 50):  # it writes in a separate thread
            found.log_image("samples/grid", np.random.randint(0, 255, (200, 200, 3), np.uint8), iteration)
            found.log({"vsd": 1.0}, iteration)
        disk.free(os.getpid())
        found.log({"vsd": 1.0}, 50)
        found.close()
        assert caplog.text.count("tensorboard cannot be written") == 1
        session(disk.folder, 1, 3, 2.0)
        assert [event.step for event in read(disk.folder).Scalars("train/vsd")] == [1, 2, 3]


def test_no_trackers(tmp_path):
    found = Trackers(tmp_path, recipe("output.trackers=[]"), 0)
    found.log({"vsd": 1.0}, 1)
    found.log_image("samples/grid", np.zeros((2, 2, 3), np.uint8), 1)
    found.close()
    assert not list(tmp_path.iterdir())


def test_wandb_is_not_installed_by_the_folder_that_it_leaves_behind(tmp_path, monkeypatch):
    load_recipe("shapes", ["output.trackers=wandb"], check_files=True)  # installed, and imported now
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert find_spec("wandb") is not None, "Python takes the folder for a package"
    with pytest.raises(RecipeError, match="wandb is not installed: pip install wandb"):
        load_recipe("shapes", ["output.trackers=wandb"], check_files=True)


def test_wandb_offline_needs_no_account(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for done in (0, 2):
        found = Trackers(tmp_path, recipe('output.trackers=["wandb"]'), done)
        found.log({"vsd": 1.0}, done + 1)
        found.log_image("samples/grid", np.zeros((2, 2, 3), np.uint8), done + 1)
        found.close()
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    identity = (tmp_path / "wandb" / "run-id.txt").read_text(encoding="utf-8")
    assert len(runs) == 2 and all(run.name.endswith(identity) for run in runs), "a resumed run is the same run"
    assert all(list(run.rglob("*.png")) for run in runs)
