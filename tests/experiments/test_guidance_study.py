"""The study: two cells from end to end by the command, and its tables from synthetic numbers."""

import copy
import json
import math
from dataclasses import asdict

import pytest
import torch

from experiments.avatars.world import AVATARS
from experiments.guidance_study import __main__ as study
from experiments.guidance_study import measure, tables
from experiments.guidance_study.settings import CELLS, Cell, Protocol
from experiments.guidance_study.worlds import MEASURES, sha256
from experiments.json_file import read_json, write_json
from experiments.tables import filled
from training.config import load_recipe, recipe

FEW = [f"--{name}=4" for name in ("curve-captions", "captions")] + [
    f"--{name}=2" for name in ("curve-prompt-images", "prompt-images", "pairs", "pair-images")
]


def run(folder, *more, cells=("pgsb", "swiftbrush"), iterations=2):
    prompts = folder / "prompts.txt"
    prompts.write_text("a red ring\nblue, left\n", encoding="utf-8")
    return study.main(
        [
            *("--seeds", "7", "--every", "1", "--jobs", "2", "--iterations", str(iterations), "--cells", *cells),
            *("--out", str(folder / "runs"), "--json", str(folder / "study.json"), "--page", str(folder / "STUDY.md")),
            *FEW,
            *("loop.batch_size=2", f"prompts.source={prompts}", *more),
        ]
    )


def written(folder):
    """Every checkpoint and measurement with its modification time."""
    paths = [*folder.glob("runs/*/checkpoints/step-*"), *folder.glob("runs/*/measured.json")]
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert run(folder) == 0
    return folder


@pytest.mark.full
@pytest.mark.slow
def test_cells_are_run_measured_and_recorded(done):
    results = json.loads((done / "study.json").read_text(encoding="utf-8"))
    assert [(run["cell"], run["seed"], run["problem"]) for run in results["runs"]] == [
        ("pgsb", 7, ""),
        ("swiftbrush", 7, ""),
    ]
    for each in results["runs"]:
        assert each["curve"].keys() == {"1", "2"}
        assert all(0 <= point[key] <= 1 for point in each["curve"].values() for key in ("stated", "valid"))
        assert all(math.isfinite(each["curve"]["2"][key]) for key in ("gap", "x0_std", "student_grad", "lora_grad"))
        assert 0 <= each["final"]["nasa"]["absent"] <= 1
    recipe = (done / "runs/swiftbrush-seed7/recipe.toml").read_text(encoding="utf-8")
    assert "teacher_kappa = 4.5" in recipe and "lora_kappa = 4.5" in recipe and "seed = 7" in recipe
    assert "kappa = 4.5" not in (done / "runs/pgsb-seed7/recipe.toml").read_text(encoding="utf-8")
    text = (done / "STUDY.md").read_text(encoding="utf-8")
    assert "| SwiftBrush: both 4.5 | 1 |" in text and "failed" not in text
    assert (done / "images/study-quality.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.full
def test_finished_cells_are_not_repeated_and_a_failed_cell_does_not_stop_the_others(done, monkeypatch, capsys):
    before = written(done)
    monkeypatch.setitem(CELLS, "broken", Cell(title="broken", overrides=("guidance.kappa_min=9",)))
    assert run(done, cells=("pgsb", "broken", "swiftbrush")) == 1
    assert written(done) == before
    assert "training" not in capsys.readouterr().out.replace("broken-seed7: training", "")
    text = (done / "STUDY.md").read_text(encoding="utf-8")
    assert "| broken | 0 |" in text
    assert "| broken | 7 | failed: exit status 2: " in text and "kappa_min 9.0" in text


@pytest.mark.slow
@pytest.mark.full
def test_the_avatars_are_measured_on_their_own_pairs(tmp_path):
    assert run(tmp_path, "--world", "avatars", "--recipe", "avatars", cells=("pgsb",)) == 0
    results = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert results["reader"] == sha256(MEASURES["avatars"].reader)
    assert results["world"] == "avatars" and results["runs"][0]["final"]["pairs"] == len(AVATARS.fixed)
    assert results["teacher"]["entropy"] > 0


@pytest.mark.slow
@pytest.mark.full
def test_a_run_resumes_from_its_last_checkpoint(done):
    before = written(done)
    assert run(done, cells=("pgsb",), iterations=3) == 0
    kept = {path: when for path, when in before.items() if "pgsb" in str(path) and "step-" in path.name}
    assert len(kept) == 2 and kept.items() <= written(done).items()
    lines = (done / "runs/pgsb-seed7/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3]
    results = json.loads((done / "study.json").read_text(encoding="utf-8"))
    assert results["iterations"] == 3 and results["runs"][0]["curve"].keys() == {"1", "2", "3"}


@pytest.mark.slow
@pytest.mark.full
def test_a_folder_with_other_settings_does_not_count_as_finished(done):
    before = written(done)
    assert run(done, "lora.loss=native", cells=("swiftbrush",)) == 1
    assert written(done) == before
    assert "choose another --out" in (done / "STUDY.md").read_text(encoding="utf-8")


def test_an_invalid_setting_is_reported_before_anything_starts(tmp_path, capsys):
    assert run(tmp_path, "guidance.kapa_min=1") == 2
    assert "did you mean guidance.kappa_min?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_pictures_are_not_read_by_the_rules_of_another_world(tmp_path, capsys):
    paths = [f"--{name}={tmp_path / name}" for name in ("out", "json", "page")]
    assert study.main(["--recipe", "avatars", *paths]) == 2
    assert "are of avatars; give a recipe of shapes, or --world avatars" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_what_another_world_measured_is_measured_again(tmp_path, monkeypatch):
    """Runs that were measured before worlds could be chosen are of shapes."""
    row, protocol = {"stated": 1.0}, Protocol()
    monkeypatch.setattr(measure, "open_checkpoint", lambda path: torch.nn.Identity())
    monkeypatch.setattr(measure, "one_step", lambda model: None)
    monkeypatch.setattr(measure, "figures", lambda *args: {})
    monkeypatch.setattr(measure, "quality", lambda generate, measures, *counts: {"of": measures.world.teacher})
    monkeypatch.setattr(measure, "final", lambda model, measures, protocol: {})
    found = {"protocol": asdict(protocol), "curve": {"1": row}, "final": {"iteration": 1}}
    write_json(tmp_path / "measured.json", found)
    assert measure.measure_run(tmp_path, "shapes", 1, 1, protocol)["curve"] == {"1": row}
    for world in ("avatars", "shapes"):
        assert measure.measure_run(tmp_path, world, 1, 1, protocol)["curve"]["1"]["of"] == MEASURES[world].world.teacher


def test_what_another_reader_read_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "open_checkpoint", lambda path: torch.nn.Identity())
    monkeypatch.setattr(measure, "one_step", lambda model: None)
    monkeypatch.setattr(measure, "figures", lambda *args: {})
    monkeypatch.setattr(measure, "quality", lambda *args: {"stated": 0.5})
    monkeypatch.setattr(measure, "final", lambda *args: {})
    about = {"protocol": asdict(Protocol()), "world": "avatars"}
    found = {"curve": {"1": {"stated": 1.0}}, "final": {"iteration": 1}}
    for reader, stated in ((MEASURES["avatars"].about, 1.0), ({"reader": "another"}, 0.5)):
        write_json(tmp_path / "measured.json", about | reader | found)
        assert measure.measure_run(tmp_path, "avatars", 1, 1, Protocol())["curve"]["1"]["stated"] == stated
    assert read_json(tmp_path / "measured.json")["reader"] == MEASURES["avatars"].about["reader"]


def test_a_setting_that_came_later_does_not_outdate_a_study(monkeypatch):
    """With its default, it is left out of the digest."""
    measured = study.digest(load_recipe("shapes"))
    assert study.digest(load_recipe("shapes", ["loop.t_shift=2"])) != measured
    monkeypatch.delitem(recipe._LATER, "loop")  # as if these settings had always been there
    assert study.digest(load_recipe("shapes")) != measured


def synthetic(levels):
    """Results in which a run's share is levels[cell][seed], and its curve fluctuates by a tenth of that."""
    point = {"gap": 0.01, "x0_std": 1.0, "student_grad": 0.1, "lora_grad": 0.2, "entropy": 0.5}
    runs = [
        {
            "cell": cell,
            "seed": seed,
            "problem": "",
            "curve": {
                str(step): {"stated": share + swing, "valid": share, **point}
                for step, swing in ((10, 9.0), (20, 0.0), (30, share / 10), (40, 0.0))
            },
            "final": {
                "full": {"stated": share, "valid": share},
                "partial": {"stated": share, "valid": share, "entropy": share},
                "pairs": 4,
                "no_negative": {"absent": 0.0, "clean": 0.0, "kept": 1.0, "valid": 1.0},
                "nasa": {"absent": 1.0, "clean": 0.5, "kept": 1.0, "valid": 1.0},
            },
        }
        for cell, shares in levels.items()
        for seed, share in enumerate(shares)
    ]
    ends = {"stated": 0.9, "valid": 0.9, "entropy": 2.0}
    return {
        "protocol": {**vars(Protocol()), "captions": 10},
        "iterations": 40,
        "recipe": "shapes",
        "overrides": [],
        "cells": {cell: vars(CELLS[cell]) for cell in levels},
        "teacher": ends,
        "start": ends,
        "runs": runs,
    }


def test_differences_are_taken_seed_by_seed():
    levels = {"pgsb": [0.8, 0.9, 0.7, 0.8], "swiftbrush": [0.7, 0.6, 0.6, 0.7], "fixed": [0.81, 0.89, 0.75, 0.81]}
    rows = {
        row.split(" | ")[0]: row.split(" | ")[1:] for row in tables.differences_table(synthetic(levels)).splitlines()
    }
    assert rows["| valid, at the end"][:3] == ["0.150 (0.100 .. 0.300) *", "-0.015 (-0.050 .. 0.010) |"]
    # the synthetic curves fluctuate by a tenth of the share; `valid` is constant
    assert rows["| fluctuation of stated right"][0] == "0.015 (0.010 .. 0.030) *"
    assert rows["| fluctuation of valid"][0] == "0.000 (0.000 .. 0.000)"


def test_one_seed_gets_no_star():
    assert "*" not in tables.differences_table(synthetic({"pgsb": [0.8], "swiftbrush": [0.7], "fixed": [0.9]}))


def test_fluctuation_leaves_out_the_first_half():
    run = synthetic({"pgsb": [0.5]})["runs"][0]
    assert tables.fluctuation("stated")(run) == pytest.approx(0.05)


def test_the_tables_show_a_failed_run_and_allow_a_cell_without_runs():
    results = synthetic({"pgsb": [0.8, 0.9], "swiftbrush": [0.7, 0.6]})
    for failed in results["runs"][1:]:
        run = copy.copy(failed)
        failed.clear()
        failed.update(cell=run["cell"], seed=run["seed"], problem="exit status 2: error: a | b")
    text = "".join(tables.all_tables(results).values())
    assert "| swiftbrush | 1 | failed: exit status 2: error: a / b |" in text
    assert "| SwiftBrush: both 4.5 | 0 | - |" in text and "nan" not in text


@pytest.mark.parametrize(("numbers", "page"), [("study.json", "STUDY.md"), ("study_avatars.json", "STUDY_AVATARS.md")])
def test_the_tables_in_docs_are_those_of_the_numbers(pack_root, numbers, page):
    results = json.loads((pack_root / "docs" / numbers).read_text(encoding="utf-8"))
    page = (pack_root / "docs" / page).read_text(encoding="utf-8")
    assert page == filled(page, tables.all_tables(results))


def test_another_world_needs_files_of_its_own(capsys):
    with pytest.raises(SystemExit):
        study.main(["--world", "avatars", "--recipe", "avatars", "--json", "mine.json"])
    assert "--world avatars needs its own --out, --page" in capsys.readouterr().err


def test_a_world_with_fixed_pairs_takes_no_number_of_modal_pairs(tmp_path, capsys):
    paths = [f"--{name}={tmp_path / name}" for name in ("out", "json", "page")]
    with pytest.raises(SystemExit):
        study.main(["--world", "avatars", "--recipe", "avatars", "--pairs", "5", *paths])
    assert (
        f"--pairs is the number of modal pairs; the world avatars has {len(AVATARS.fixed)} fixed"
        in capsys.readouterr().err
    )
    assert not [*tmp_path.iterdir()]
