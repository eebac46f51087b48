"""evaluate.every: figures of the commands, on a schedule, and a training that is bit for bit the same."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from evaluation import PAIRS, evaluate, pictures, pixels
from tiny_clip import write_tiny_clip
from trainer import assert_same, start_distributed, tensor_files, with_fsdp

from training.config import load_recipe
from training.distill.step import Distillation
from training.evaluate.generate.maker import Maker
from training.evaluate.judges.verdict import Verdict
from training.evaluate.scheduled.check import prompts_of_evaluation
from training.evaluate.scheduled.evaluation import ScheduledEvaluation
from training.pgsb import main
from training.trainer.monitor.metrics_log import read_metrics
from training.trainer.monitor.report import curves

EVERY = ("evaluate.every=2", "evaluate.images=5", "evaluate.count=2", "evaluate.batch=3", "evaluate.alpha=0.5")
_OF_TIME = ("iterations_per_s", "memory_gib")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.json"
    path.write_text(PAIRS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def everything(tmp_path_factory, pairs, inception, reference):
    """Settings of an evaluation with all metrics, by tiny random networks."""
    clip = write_tiny_clip(tmp_path_factory.mktemp("clip"))
    return [
        *(*EVERY, 'evaluate.metrics=["clip", "fid", "prc", "removal"]', f"evaluate.pairs={pairs}"),
        *(f"evaluate.clip_model=local-dir:{clip}", f"evaluate.judge_model=local-dir:{clip}"),
        *("evaluate.clip_weights=", "evaluate.judge_weights=", f"evaluate.inception_weights={inception}"),
        f"evaluate.reference={reference}",
    ]


@pytest.fixture(scope="module")
def evaluated(tiny_run, everything, tmp_path_factory):
    """A run that was stopped after the second of four iterations, and continued; torch's random state before each."""
    folder, states = tmp_path_factory.mktemp("evaluated"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distillation, "run", _recording(states))
        assert main(tiny_run(folder, *everything, "loop.iterations=2")) == 0
        assert main(tiny_run(folder, *everything, "loop.iterations=4", "--resume")) == 0
    return folder, states


def _recording(states):
    original = Distillation.run

    def run(self, *arguments):
        states.append(torch.get_rng_state())
        return original(self, *arguments)

    return run


def lines(folder):
    return read_metrics(folder / "metrics.jsonl")


def figures(folder):
    return [{name: v for name, v in line.items() if name.startswith("eval_")} for line in lines(folder)]


def test_the_training_is_the_same_bit_for_bit(tiny_run, evaluated, tmp_path, monkeypatch):
    folder, states = evaluated
    plain = []
    monkeypatch.setattr(Distillation, "run", _recording(plain))
    for iterations in (2, 4):
        assert main(tiny_run(tmp_path, f"loop.iterations={iterations}", "--resume")) == 0
    assert_same(folder, tmp_path)
    assert len(states) == len(plain) == 4
    # of the resumed part, too: the first state is what loading the models leaves
    assert all(torch.equal(states[n], states[n - n % 2]) for n in range(4))
    for ours, theirs in zip(lines(folder), lines(tmp_path), strict=True):
        left = {name: value for name, value in ours.items() if not name.startswith("eval_") and name not in _OF_TIME}
        assert left == {name: value for name, value in theirs.items() if name not in _OF_TIME}


def test_the_figures_are_those_of_the_commands(evaluated, everything, pairs, tmp_path):
    """The exported student, measured by hand at the same seed."""
    folder, _ = evaluated
    recipe = load_recipe("shapes", everything).evaluation
    assert [bool(found) for found in figures(folder)] == [False, True, False, True]
    student, last = folder / "export" / "student.safetensors", figures(folder)[-1]
    prompts = tmp_path / "prompts.txt"
    manifest = json.loads((folder / "evaluation" / "prompts" / "none" / "manifest.json").read_text(encoding="utf-8"))
    prompts.write_text("".join(row["prompt"] + "\n" for row in manifest["images"]), encoding="utf-8")
    common = ("--cpu", "--seed", 0, "--batch", 3)
    ours = tmp_path / "prompts"
    evaluate("generate", student, "--prompts", prompts, "--methods", "none", "--out", ours, *common)
    words = ("--clip-model", recipe.clip_model, "--clip-weights", "", "--reference", recipe.reference)
    words = ("--metrics", "clip", "fid", "prc", *words, "--inception-weights", recipe.inception_weights, "--batch", 3)
    evaluate("score", ours, "--out", tmp_path / "scores.json", "--cpu", *words)
    (row,) = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["sets"]
    scores = row["scores"]
    assert last["eval_clip"] == pytest.approx(scores["clip"]["value"], abs=1e-4)
    for name, sign in (("low", -1), ("high", 1)):
        end = scores["clip"]["value"] + sign * 1.96 * scores["clip"]["standard_error"]
        assert last[f"eval_clip_{name}"] == pytest.approx(end, abs=2e-4)
    assert last["eval_fid"] == pytest.approx(scores["fid"]["value"], rel=1e-3)
    for name in ("precision", "recall"):
        assert last[f"eval_{name}"] == pytest.approx(scores["prc"][name])
    removed = tmp_path / "pairs"
    evaluate(
        *("generate", student, "--pairs", pairs, "--count", 2, "--methods", "none", "nasa:0.5", "--out", removed),
        *common,
    )
    for method in ("none", "nasa-0.5"):
        theirs = folder / "evaluation" / "pairs" / method
        assert pictures(removed / method).keys() == pictures(theirs).keys() and len(pictures(theirs)) == 6
        for name in pictures(theirs):
            assert abs(pixels(removed / method / name) - pixels(theirs / name)).max() <= 1
    judge = ("--judge", "clip", "--clip-model", recipe.judge_model, "--clip-weights", "", "--cpu")
    evaluate("removal", removed, *judge, "--out", tmp_path / "removal.json")
    found = json.loads((tmp_path / "removal.json").read_text(encoding="utf-8"))["sets"]
    for row, prefix in zip(found, ("eval_plain_", "eval_"), strict=True):
        for name in ("absent", "kept", "valid", "clean"):
            theirs = row["means"]["all"][name]
            ours = {"share": last[prefix + name]} | {end: last[f"{prefix}{name}_{end}"] for end in ("low", "high")}
            assert ours == pytest.approx(theirs)


def test_reports_and_trackers_have_the_figures(evaluated, tmp_path):
    folder, _ = evaluated
    page = tmp_path / "report.html"
    evaluate("report", folder / "evaluation", "--out", page)
    assert "precision" in page.read_text(encoding="utf-8")
    text = (folder / "README.txt").read_text(encoding="utf-8")
    for name in {re.sub("_(low|high)$", "", name) for name in figures(folder)[-1]}:
        assert name.replace("eval_plain_", "eval_") in text or name.removeprefix("eval_") in text, name
    with_figures = lines(folder)
    without = [{name: v for name, v in line.items() if not name.startswith("eval_")} for line in with_figures]
    assert len(curves(with_figures)) > len(curves(without)), "the figures are drawn"


def test_a_small_world_is_read_by_its_own_reader(tiny_run, tmp_path, caplog, capsys, monkeypatch):
    """As in the recipes of the small worlds: nothing but evaluate.every is given, and no CLIP is loaded."""
    monkeypatch.setattr("training.console.EVERY", 0.01)
    arguments = tiny_run(tmp_path, "prompts.source=shapes", "loop.iterations=2", "evaluate.every=1", "evaluate.count=1")
    with caplog.at_level("INFO"):
        assert main(arguments) == 0
    _, found = figures(tmp_path)
    tables = [n for n, text in enumerate(caplog.messages) if text.startswith("evaluation after iteration ")]
    assert ["pairs (prompt - negative): a shape in the" in caplog.messages[n] for n in tables] == [True, False]
    steps = [n for n, text in enumerate(caplog.messages) if text.startswith("evaluating the student ... (")]
    assert steps[0] < tables[0] and steps[-1] < tables[-1], "a table follows the step that made it"
    assert "\x1b" not in capsys.readouterr().err, "no bar moves the cursor of a file"
    names = {f"eval_{kind}{name}" for kind in ("", "plain_") for name in ("absent", "kept", "valid", "clean")}
    assert found.keys() == {name + end for name in names for end in ("", "_low", "_high")}
    assert all(0 <= value <= 1 for value in found.values())


def failing_later(pictures, pair):
    """A judge of the tests: the blank picture before the training is judged, others are not."""
    torch.rand(3)
    if len({picture.getpixel((0, 0)) for picture in pictures} | {(128, 128, 128)}) > 1:
        raise ValueError("the judge has gone home")
    return [Verdict(absent=True) for _ in pictures]


def test_an_evaluation_that_fails_does_not_end_the_run(tiny_run, pairs, tmp_path, caplog, monkeypatch):
    judge = ("evaluate.judge=test_scheduled:failing_later", f"evaluate.pairs={pairs}", "evaluate.metrics=removal")
    monkeypatch.syspath_prepend(__file__.rpartition("/")[0])
    assert main(tiny_run(tmp_path, *EVERY, *judge, "loop.iterations=4", "output.sample_every=4")) == 0
    assert "the judge has gone home" in caplog.text
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2, 3, 4] and not any(figures(tmp_path))
    assert "sample_distance" in lines(tmp_path)[-1], "what else was measured is logged"
    assert (tmp_path / "report.html").is_file() and (tmp_path / "export" / "student.safetensors").is_file()


def test_a_student_that_is_not_finite_is_not_judged(tiny_run, everything, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("training.evaluate.generate.maker.steered_x0", lambda *_: torch.full((3, 4, 8, 8), torch.nan))
    assert main(tiny_run(tmp_path, *everything, "loop.iterations=2")) == 0
    assert "iteration 2: the student cannot be evaluated (an image of some process is not finite" in caplog.text
    assert not any(figures(tmp_path)) and not (tmp_path / "evaluation").exists()


def test_a_failed_evaluation_leaves_no_results_of_an_earlier_one(tiny_run, tmp_path, caplog, monkeypatch):
    """Any error is told: one that is raised would leave other processes waiting for images."""
    arguments = tiny_run(tmp_path, "prompts.source=shapes", "loop.iterations=2", "evaluate.every=1", "evaluate.count=1")
    result = tmp_path / "evaluation" / "removal-shapes.json"
    draw, measure, seen = Maker.draw, ScheduledEvaluation.measure, []

    def draws_once(self, *rows):
        if seen[-1]:
            raise RuntimeError("the images are not made")
        return draw(self, *rows)

    def measured(self, *arguments):
        seen.append(result.exists())
        return measure(self, *arguments)

    monkeypatch.setattr(Maker, "draw", draws_once)
    monkeypatch.setattr(ScheduledEvaluation, "measure", measured)
    assert main(arguments) == 0
    assert seen == [False, True] and not result.exists() and [bool(found) for found in figures(tmp_path)] == seen[::-1]
    assert "an image for the evaluation cannot be made: RuntimeError: the images are not made" in caplog.text


def test_the_dry_run_tells_what_will_be_measured(tiny_run, everything, tmp_path, capsys):
    assert main(tiny_run(tmp_path / "run", *everything, "loop.iterations=4", "--dry-run")) == 0
    found = " ".join(capsys.readouterr().out.split())
    assert "every 2 iterations and at the end: clip, fid, prc of up to 5 images; removal by NASA at alpha 0.5" in found


def test_prompts_are_read_as_those_of_the_run(tmp_path):
    table, text = tmp_path / "a.csv", tmp_path / "a.txt"
    table.write_text("prompt,words\nno,x\nno,x\nno,y\n", encoding="utf-8")
    text.write_text("a\nb\n", encoding="utf-8")

    def found(source, column):
        settings = [f"evaluate.prompts={source}", f"prompts.column={column}"]
        return prompts_of_evaluation(load_recipe("shapes", settings), 9)

    assert found(table, "words") == ["x", "y"] and found(table, "") == ["no"]
    assert found(text, "words") == ["a", "b"], "it has no columns"
    with pytest.raises(ValueError, match=r"^evaluate\.prompts, .* has no column 'wrods'; its columns: prompt, words"):
        found(table, "wrods")


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "run"])
@pytest.mark.parametrize(("every", "hinted"), [("0", True), ("1", False)])
def test_settings_that_have_no_effect_are_named(tiny_run, tmp_path, capsys, caplog, every, hinted, dry):
    words = (f"evaluate.every={every}", "evaluate.judge=shapes", "evaluate.metrics=removal", "evaluate.count=1")
    more = ("prompts.source=shapes", "loop.iterations=1", *["--dry-run"] * dry)
    with caplog.at_level("INFO"):
        assert main(tiny_run(tmp_path / "run", *words, *more)) == 0
    hint = "hint: evaluate.metrics, evaluate.judge, evaluate.count have no effect, since evaluate.every is 0"
    assert (hint in capsys.readouterr().out + caplog.text) == hinted


def test_settings_of_the_evaluation_do_not_change_a_run(tiny_run, evaluated, everything, tmp_path):
    """They may change when it is resumed, and are in no hash of a recipe."""
    plain, other = load_recipe("shapes"), load_recipe("shapes", everything)
    assert plain.sha256() == other.sha256()
    run = shutil.copytree(evaluated[0], tmp_path / "run")
    assert main(tiny_run(run, "loop.iterations=5", "--resume")) == 0
    assert len(lines(run)) == 5 and not figures(run)[-1]


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("alter", [None, with_fsdp], ids=["DDP", "FSDP"])
def test_two_processes_find_the_same(tiny_run, evaluated, everything, tmp_path, alter):
    """Five prompts cannot be divided evenly. The training does not notice evaluation and samples there, either."""
    words = [word for word in everything if word != "evaluate.batch=3"] + ["evaluate.batch=2", "output.sample_every=1"]
    folders = tmp_path / "evaluated", tmp_path / "plain"
    for folder, more in zip(folders, (words, []), strict=True):
        log = tmp_path / f"{folder.name}.log"
        arguments = tiny_run(folder, *more, "loop.iterations=4", "output.keep_last=1")
        for one in start_distributed(log, *arguments, alter=alter):
            one.end()
    assert tensor_files(folders[0]) == tensor_files(folders[1])
    for method in ("prompts/none", "pairs/none", "pairs/nasa-0.5"):
        ours, theirs = (folder / "evaluation" / method for folder in (folders[0], evaluated[0]))
        assert pictures(ours).keys() == pictures(theirs).keys()
        for name in pictures(ours):
            assert np.abs(pixels(ours / name) - pixels(theirs / name)).max() <= 2
    for ours, theirs in zip(figures(folders[0]), figures(evaluated[0]), strict=True):
        assert ours.keys() == theirs.keys()
        if ours:
            assert ours["eval_clip"] == pytest.approx(theirs["eval_clip"], abs=1e-3)


def test_the_models_that_judge_are_freed(tiny_run, everything, tmp_path, monkeypatch):
    seen = []
    measure = ScheduledEvaluation.measure

    def measured(self, *arguments):
        seen.append([set(vars(metric)) & {"clip", "network"} for metric in self.metrics.values()])
        found = measure(self, *arguments)
        seen.append([set(vars(metric)) & {"clip", "network"} for metric in self.metrics.values()])
        return found

    monkeypatch.setattr(ScheduledEvaluation, "measure", measured)
    assert main(tiny_run(tmp_path, *everything, "loop.iterations=2")) == 0
    assert seen == [[set()] * 3] * 2
