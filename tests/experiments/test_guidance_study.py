"""The study: two cells from end to end with the command itself, and its page from numbers made up here."""

import copy
import json
import math

import pytest

from experiments.guidance_study import __main__ as study
from experiments.guidance_study import findings
from experiments.guidance_study.page import page, write_page
from experiments.guidance_study.settings import CELLS, Cell, Protocol

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
    """Every checkpoint and measurement with the time of its writing."""
    paths = [*folder.glob("runs/*/checkpoints/step-*"), *folder.glob("runs/*/measured.json")]
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert run(folder) == 0
    return folder


@pytest.mark.slow
def test_cells_are_run_measured_and_written_down(done):
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
    assert "2 of 2 runs ended well" in text and "| SwiftBrush: both 4.5 |" in text
    assert (done / "images/study-quality.png").stat().st_size > 10_000


@pytest.mark.slow
def test_what_is_done_is_not_repeated_and_a_broken_cell_does_not_stop_the_rest(done, monkeypatch, capsys):
    before = written(done)
    monkeypatch.setitem(CELLS, "broken", Cell(title="broken", overrides=("guidance.kappa_min=9",)))
    assert run(done, cells=("pgsb", "broken", "swiftbrush")) == 1
    assert written(done) == before
    assert "training" not in capsys.readouterr().out.replace("broken-seed7: training", "")
    text = (done / "STUDY.md").read_text(encoding="utf-8")
    assert "2 of 3 runs ended well" in text
    assert "| broken | 7 | failed: exit status 2: " in text and "kappa_min 9.0" in text


@pytest.mark.slow
def test_a_run_goes_on_from_its_last_checkpoint(done):
    before = written(done)
    assert run(done, cells=("pgsb",), iterations=3) == 0
    kept = {path: when for path, when in before.items() if "pgsb" in str(path) and "step-" in path.name}
    assert len(kept) == 2 and kept.items() <= written(done).items()
    lines = (done / "runs/pgsb-seed7/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3]
    results = json.loads((done / "study.json").read_text(encoding="utf-8"))
    assert results["iterations"] == 3 and results["runs"][0]["curve"].keys() == {"1", "2", "3"}


@pytest.mark.slow
def test_a_folder_of_other_settings_is_not_taken_for_done(done):
    before = written(done)
    assert run(done, "lora.loss=native", cells=("swiftbrush",)) == 1
    assert written(done) == before
    assert "choose another --out" in (done / "STUDY.md").read_text(encoding="utf-8")


def test_a_wrong_setting_is_said_before_anything_starts(tmp_path, capsys):
    assert run(tmp_path, "guidance.kapa_min=1") == 2
    assert "did you mean guidance.kappa_min?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def made_up(levels):
    """Results in which the share of a cell's run is levels[cell][seed], and its curve swings by a tenth of that."""
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
            "seconds_per_iteration": 2.0,
        }
        for cell, shares in levels.items()
        for seed, share in enumerate(shares)
    ]
    ends = {"stated": 0.9, "valid": 0.9, "entropy": 2.0}
    return {
        "protocol": {**vars(Protocol()), "captions": 10},
        "iterations": 40,
        "recipe": "shapes",
        "recipe_iterations": 700,
        "overrides": [],
        "kappa": [0.5, 4.0],
        "lora_loss": "eps",
        "cells": {cell: vars(CELLS[cell]) for cell in levels},
        "teacher": ends,
        "start": ends,
        "runs": runs,
    }


def test_every_verdict_follows_from_the_numbers():
    levels = {"pgsb": [0.8, 0.9, 0.7, 0.8], "swiftbrush": [0.7, 0.6, 0.6, 0.7], "fixed": [0.81, 0.89, 0.75, 0.81]}
    results = made_up(levels)
    assert findings.compare(results, "pgsb", "swiftbrush", findings.valid) == (
        "+0.150 (+0.100 .. +0.300), higher with every seed",
        1,
    )
    summary, *blocks = findings.claims(results).split("\n- ")
    assert summary.startswith("Of 14 comparisons 5 came out for PG-SB with every seed and 1 against it.")
    assert blocks[0].count("**Confirmed here**") == 4
    assert blocks[1].count("**Not settled**: -0.01") == 4 and "higher with 1 and lower with 3 of 4 seeds" in blocks[1]
    # swings are a tenth of the share: PG-SB's are the larger ones; valid does not move at all
    assert "fluctuation of stated: **The opposite came out**: +0.015" in blocks[2]
    assert "fluctuation of valid: **Not settled**: +0.000" in blocks[2]
    ranking = findings.order(results)
    assert "by valid, at the end: neither (0.815), both (0.800); the cells lie 0.015 apart" in ranking
    assert "this order means little" in ranking and "comes first on 0 of these 4 measures" in ranking
    assert "keep 32% (SwiftBrush: both 4.5) to 41% (same mean" in findings.diversity(results)


def test_as_many_as_chance_would_have_settle_nothing():
    """Six of fourteen with three seeds: the same signs, but one time in four they agree anyway."""
    results = made_up({"pgsb": [0.8, 0.9, 0.7], "swiftbrush": [0.7, 0.6, 0.6], "fixed": [0.81, 0.89, 0.75]})
    said = findings.claims(results)
    assert "too small to settle any" in said and said.count("**Not settled**") == 14


def test_one_seed_settles_nothing():
    results = made_up({"pgsb": [0.8], "swiftbrush": [0.7], "fixed": [0.9]})
    assert findings.claims(results).count("**Not settled**") == 14


def test_fluctuation_leaves_out_the_first_half():
    run = made_up({"pgsb": [0.5]})["runs"][0]
    assert findings.fluctuation("stated")(run) == pytest.approx(0.05)


def test_the_page_shows_a_failed_run_and_survives_a_cell_without_any(tmp_path):
    results = made_up({"pgsb": [0.8, 0.9], "swiftbrush": [0.7, 0.6]})
    for failed in results["runs"][1:]:
        run = copy.copy(failed)
        failed.clear()
        failed.update(cell=run["cell"], seed=run["seed"], problem="exit status 2: error: a | b")
    write_page(results, tmp_path / "STUDY.md")
    text = (tmp_path / "STUDY.md").read_text(encoding="utf-8")
    assert "1 of 4 runs ended well" in text
    assert "| swiftbrush | 1 | failed: exit status 2: error: a / b |" in text
    assert "not measured" in text and "nan" not in text


def test_the_page_in_docs_is_the_one_that_its_numbers_make(pack_root):
    results = json.loads((pack_root / "docs/study.json").read_text(encoding="utf-8"))
    assert (pack_root / "docs/STUDY.md").read_text(encoding="utf-8") == page(results)
