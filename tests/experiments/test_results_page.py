"""The tables of docs/RESULTS.md match the measured numbers; missing or mixed numbers are refused."""

import json

import numpy as np
import pytest
from scipy import stats

from experiments import teacher_scale
from experiments.negatives.results import Negatives
from experiments.results_page import __main__ as report
from experiments.results_page import tables
from experiments.tables import fill_page, filled
from training.evaluate.judges.intervals import bootstrap, wilson


def test_the_bootstrap_equals_scipys():
    values = np.random.default_rng(1).beta(2, 1, size=16)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=5).confidence_interval
    assert bootstrap(list(values)) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_wilson_intervals():
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_an_attribute_that_was_hardly_asked_for_is_not_the_worst():
    partial = {"asked": {"hair": 30, "bloom": 2}, "per_attribute": {"hair": 0.9, "bloom": 0.0}}
    assert tables.worst_attribute({"partial": partial}, "partial") == ("hair", 0.9)
    assert tables.worst_attribute({"partial": partial | {"asked": {"hair": 3, "bloom": 2}}}, "partial")[0] == "bloom"


def test_the_bar_for_the_worst_attribute_is_checked_on_the_worse_kind_of_captions(data):
    """An attribute may be right in partial captions and wrong in full ones."""
    teacher = data["teacher"]
    least = min(
        teacher[kind]["per_attribute"][name]
        for kind in ("partial", "full")
        for name, count in teacher[kind]["asked"].items()
        if count >= tables.ASKED
    )
    table = tables.verdict_table(teacher, data["student"], Negatives(data["negatives"]), data["judges"]["alpha"])
    (row,) = (line for line in table.splitlines() if "the worst attribute" in line)
    assert f"| {least:.3f} |" in row


@pytest.fixture(scope="module")
def data(pack_root):
    return report.load(pack_root / "docs/data")


def test_the_tables_in_docs_are_those_of_the_numbers(pack_root, data):
    page = (pack_root / "docs/RESULTS.md").read_text(encoding="utf-8")
    assert page == filled(page, report.all_tables(data, data["judges"]["alpha"]))


def test_only_the_tables_of_a_page_are_replaced(tmp_path):
    page = "Text, \\1.\n\n<!-- table a -->\nold\n<!-- end -->\n\n<!-- table b -->\n<!-- end -->\n"
    new = filled(page, {"a": "| \\1 |\n", "b": "| 2 |\n"})
    assert new == page.replace("old\n", "| \\1 |\n").replace("b -->\n", "b -->\n| 2 |\n")
    with pytest.raises(ValueError, match=r"expected exactly one '<!-- table c -->'.*found 0"):
        filled(page, {"c": ""})
    fill_page(tmp_path / "new.md", {"a": "| 1 |\n"})
    assert (tmp_path / "new.md").read_text(encoding="utf-8") == "<!-- table a -->\n| 1 |\n<!-- end -->\n"


def test_missing_or_mixed_measurements_are_refused(tmp_path, data, capsys):
    for name in report.NAMES:
        content = dict(data[name])
        if name == "negatives":
            content["arms"] = {arm: row for arm, row in content["arms"].items() if arm != "4 none"}
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    call = ["--data", str(tmp_path), "--page", str(tmp_path / "R.md")]
    assert report.main(call) == 2 and "lacks 4 none" in capsys.readouterr().err
    (tmp_path / "negatives.json").write_text(json.dumps(data["negatives"]), encoding="utf-8")
    assert report.main([*call, "--alpha", "0.1"]) == 2
    assert "alpha 0.1 was not measured in one step and in four; available: [0.25" in capsys.readouterr().err
    (tmp_path / "teacher.json").write_text(json.dumps(data["student"]), encoding="utf-8")
    assert report.main(call) == 2 and "of different models" in capsys.readouterr().err
    (tmp_path / "teacher.json").unlink()
    assert report.main(call) == 2 and "not measured yet" in capsys.readouterr().err
    assert not (tmp_path / "R.md").exists()


@pytest.mark.slow
def test_scales_are_measured_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(teacher_scale, "SCALES", (1.0, (2.0, 5.0)))
    call = ["--world=shapes", "--json", str(tmp_path / "scale.json"), "--count", "2", "--steps", "2"]
    assert teacher_scale.main(call) == 0 and "2 scales, 2 measured now" in capsys.readouterr().out
    assert teacher_scale.main(call) == 0 and "2 scales, 0 measured now" in capsys.readouterr().out
    before = (tmp_path / "scale.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        teacher_scale.main([*call[:-1], "3"])
    assert "steps 2, not 3: choose another" in capsys.readouterr().err
    assert (tmp_path / "scale.json").read_bytes() == before
