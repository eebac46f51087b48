"""The comparison of 1, 2 and 4 steps: from end to end by the command, and its tables from synthetic numbers."""

import json

import pytest

from experiments.few_steps.__main__ import main
from experiments.few_steps.settings import IN_MOST, Protocol, Study
from experiments.few_steps.tables import all_tables, difference_table, quality_table, removal_table
from experiments.run_trainer import run_trainer
from experiments.tables import filled

FEW = ("--captions=4", "--prompt-images=2", "--pair-images=2", "--save-every=1", "--seeds=7")


def run(folder, *more, iterations=1, steps=(1, 4)):
    places = [f"--{name}={folder / place}" for name, place in (("out", "runs"), ("json", "f.json"), ("page", "F.md"))]
    settings = [f"--iterations={iterations}", *more, "loop.batch_size=2", "loop.cooldown=0"]
    return main([*places, *FEW, "--steps", *map(str, steps), *settings])


def stamps(folder):
    paths = [*folder.glob("runs/*/checkpoints/step-*"), *folder.glob("runs/**/*.json")]
    return {path: path.stat().st_mtime_ns for path in paths if path.name not in ("environment.json", "state.json")}


@pytest.mark.full
@pytest.mark.slow
def test_students_are_trained_measured_and_drawn_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.few_steps.tables.IMAGES", 2)
    assert run(tmp_path) == 0
    found = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert [(one["steps"], one["problem"]) for one in found["runs"]] == [(1, ""), (4, "")]
    assert found["operations"]["1"] < found["operations"]["4"]
    for steps, timesteps in ((1, "[999,]"), (4, "[999,749,499,249,]")):
        recipe = (tmp_path / f"runs/{steps}-step-seed7/recipe.toml").read_text(encoding="utf-8")
        assert f"timesteps={timesteps}" in "".join(recipe.split())
    page = (tmp_path / "F.md").read_text(encoding="utf-8")
    assert page.count("| 4 steps |") == 5 and "| teacher, 20 steps |" in page
    assert (tmp_path / "images/few-steps.png").stat().st_size > 1_000
    before = stamps(tmp_path)
    capsys.readouterr()
    assert run(tmp_path, steps=(1,)) == 0
    assert stamps(tmp_path) == before and "training" not in capsys.readouterr().out
    assert run(tmp_path, "lora.rank=8", steps=(1,)) == 1
    assert "choose another --out" in capsys.readouterr().out
    assert run(tmp_path, iterations=2, steps=(1,)) == 0
    assert "1-step-seed7: training" in capsys.readouterr().out
    assert len(stamps(tmp_path)) == len(before) + 1, "the run was not continued"


@pytest.mark.parametrize("iterations", [100, 600])
def test_a_run_with_a_cooldown_is_no_run_of_another_length(tmp_path, iterations):
    (tmp_path / "recipe.toml").write_text("[loop]\niterations = 300\ncooldown = 100\n")
    (tmp_path / "checkpoints/step-00000100").mkdir(parents=True)
    problem = run_trainer(tmp_path, "avatars", [], [], iterations=iterations, threads=1)
    assert "is a run of 300 iterations whose learning rate falls at its end" in problem
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["recipe.toml"]


def test_the_tables_in_docs_are_those_of_the_numbers(pack_root):
    results = json.loads((pack_root / "docs/data/few_steps.json").read_text(encoding="utf-8"))
    page = (pack_root / "docs/FEW_STEPS.md").read_text(encoding="utf-8")
    assert page == filled(page, all_tables(results))


def made(steps, seed, *, valid, bits):
    removal = {
        "no negative": [{"absent": 0.1, "kept": 1.0, "valid": valid, "clean": 0.1}] * 4,
        "all steps": [{"absent": 0.9, "kept": 1.0, "valid": valid, "clean": 0.8}] * 4,
        "first step": [{"absent": 0.7, "kept": 1.0, "valid": valid, "clean": 0.6}] * 4,
    }
    figures = {"captions": 100, "stated": 0.9, "valid": valid, "entropies": [bits] * 5, "removal": removal}
    more = {IN_MOST: figures | {"valid": valid + 0.05}} if steps == 1 else {}
    return {"steps": steps, "seed": seed, "iterations": 700, **figures, **more}


def test_the_tables_say_what_more_steps_change():
    teacher = {"captions": 100, "stated": 1.0, "valid": 0.95, "entropies": [2.0, 2.0]}
    runs = [made(1, seed, valid=0.6 + seed / 10, bits=0.5) for seed in (0, 1)]
    runs += [made(4, seed, valid=0.8 + seed / 10, bits=1.0) for seed in (0, 1)]
    quality = quality_table(teacher, runs, {1: 1e9, 4: 1.2e9})
    assert "| 4 steps | 2 x 700 | 1.20 | 0.900 [" in quality and "| 1.00 [1.00, 1.00] | 0.50 |" in quality
    assert "| 4 steps | 0.000 (0.000 .. 0.000) | 0.200 (0.200 .. 0.200) | 0.250 (0.250 .. 0.250) |" in difference_table(
        teacher, runs
    )
    removal = removal_table(runs)
    assert "| 4 steps | NASA in the first step | 0.70 [0.70, 0.70] |" in removal
    in_most = "| 1 step, drawn in 4 steps |"
    assert f"{in_most} 0.000 (0.000 .. 0.000) | 0.050 (0.050 .. 0.050) |" in difference_table(teacher, runs)
    assert f"{in_most} 2 x 700 | 1.00 | 0.900 [" in quality and removal.count(in_most) == 3
    assert removal.count("| 1 step |") == 2, "NASA in the first step is NASA in all of one"


@pytest.mark.parametrize(("equal", "iterations"), [("updates", 700), ("operations", 583)])
def test_the_budget_is_updates_or_operations(tmp_path, equal, iterations):
    settings = {"iterations": 700, "save_every": 100, "threads": 1, "overrides": (), "protocol": Protocol()}
    study = Study(out=tmp_path, equal=equal, **settings)
    assert study.length({1: 1e9, 4: 1.2e9}, 4) == iterations
