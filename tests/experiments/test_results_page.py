"""The pages are what their numbers say, and the HTML file says the same and needs nothing beside it."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from experiments import teacher_scale
from experiments.guidance_study.findings import VERDICTS
from experiments.results_page import __main__ as report
from experiments.results_page import teacher_scale as table_1
from experiments.results_page import verdicts
from experiments.results_page.html import html
from training.evaluate.judges.intervals import bootstrap, wilson


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(1).beta(2, 1, size=16)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=5).confidence_interval
    assert bootstrap(list(values)) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_wilson_intervals():
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


@pytest.fixture(scope="module")
def data(pack_root):
    return report.load(pack_root / "docs/data", pack_root / "docs/study.json")


def test_the_pages_are_written_from_the_files_beside_them(pack_root, data):
    """The HTML file is the same two pages, with their pictures inside."""
    docs = pack_root / "docs"
    pages = {name: (docs / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "STUDY.md")}
    assert pages["RESULTS.md"] == report.page(data, 1.0)
    assert (docs / "RESULTS.html").read_text(encoding="utf-8") == html(pages, docs, report.TITLE)


def test_the_html_file_stands_alone(pack_root):
    page = (pack_root / "docs/RESULTS.html").read_text(encoding="utf-8")
    links = set(re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page))
    assert links == {"#STUDY.md", "#RESULTS.md"} and all(f'id="{link[1:]}"' in page for link in links)
    assert page.count("data:image/png") == 6


def test_every_cell_of_a_table_is_there(pack_root):
    for name in ("RESULTS.md", "STUDY.md"):
        text = (pack_root / "docs" / name).read_text(encoding="utf-8")
        rows = [line for line in text.splitlines() if line.startswith("|")]
        page = html({name: re.sub(r"^!.*$", "", text, flags=re.M)}, pack_root / "docs", "x")
        assert page.count("<td>") + page.count("<th>") == sum(
            line.count("|") - 1 for line in rows if not set(line) <= set("|- ")
        )


def test_what_is_missing_or_of_another_model_makes_no_page(pack_root, tmp_path, data, capsys):
    for name in report.NAMES:
        content = dict(data[name])
        if name == "negatives":
            content["arms"] = {arm: row for arm, row in content["arms"].items() if arm != "4 none"}
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    call = ["--data", str(tmp_path), "--study", str(pack_root / "docs/study.json"), "--out", str(tmp_path / "R.md")]
    assert report.main(call) == 2 and "lacks 4 none" in capsys.readouterr().err
    (tmp_path / "negatives.json").write_text(json.dumps(data["negatives"]), encoding="utf-8")
    assert report.main([*call, "--alpha", "0.75"]) == 2
    assert "alpha 0.75 was not measured in one step and in four; available: [0.25" in capsys.readouterr().err
    (tmp_path / "teacher.json").write_text(json.dumps(data["student"]), encoding="utf-8")
    assert report.main(call) == 2 and "of different models" in capsys.readouterr().err
    (tmp_path / "teacher.json").unlink()
    assert report.main(call) == 2 and "not measured yet" in capsys.readouterr().err
    assert not (tmp_path / "R.md").exists()


@pytest.mark.parametrize(("values", "word"), [([0.4, 0.5, 0.6], 1), ([-0.4, -0.5, -0.6], -1), ([-0.5, 0.1, 0.6], 0)])
def test_a_verdict_needs_its_interval_on_one_side(values, word):
    assert verdicts.over(values) == VERDICTS[word] == verdicts.agreeing(values)
    assert verdicts.under([value + 1 for value in values], 1.0) == VERDICTS[-word]


def test_a_missing_picture_is_no_page(tmp_path):
    with pytest.raises(FileNotFoundError):
        html({"a": "![x](images/none.png)"}, tmp_path, "x")


def test_the_random_scale_is_compared_with_the_papers_fixed_ones():
    def row(*stated):
        return {"blocks": [{"stated": share} for share in stated]}

    scales = {"2": row(0.8, 0.4), "3": row(0.9, 0.4), "4": row(0.9, 0.4), "5": row(0.6, 0.4), "U(2, 5)": row(0.9, 0.3)}
    assert table_1.lead({"scales": scales | {"1": row(0.0, 0.0)}}, "stated") == pytest.approx([0.1, -0.1])


@pytest.mark.slow
def test_scales_are_measured_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(teacher_scale, "SCALES", (1.0, (2.0, 5.0)))
    call = ["--json", str(tmp_path / "scale.json"), "--count", "2", "--steps", "2"]
    assert teacher_scale.main(call) == 0 and "2 scales, 2 measured now" in capsys.readouterr().out
    assert teacher_scale.main(call) == 0 and "2 scales, 0 measured now" in capsys.readouterr().out
    before = (tmp_path / "scale.json").read_bytes()
    assert teacher_scale.main([*call[:-1], "3"]) == 2 and "steps 2, not 3: choose another" in capsys.readouterr().err
    assert (tmp_path / "scale.json").read_bytes() == before
