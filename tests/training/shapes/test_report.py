"""The pages are what their numbers say, and the HTML file says the same and needs nothing beside it."""

import html as markup
import re

import numpy as np
import pytest
from scipy import stats

from training.intervals import bootstrap, wilson
from training.shapes import teacher_scale
from training.shapes.report import __main__ as report
from training.shapes.report import teacher_scale as table_1
from training.shapes.report.html import html


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(1).beta(2, 1, size=16)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=5).confidence_interval
    assert bootstrap(list(values)) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_wilson_intervals():
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_the_page_is_written_from_the_files_beside_it(pack_root):
    docs = pack_root / "docs"
    text = (docs / "RESULTS.md").read_text(encoding="utf-8")
    assert text == report.page(docs / "data", docs / "study.json", 1.0)


def test_the_html_file_says_the_same_and_stands_alone(pack_root):
    docs = pack_root / "docs"
    page = (docs / "RESULTS.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:|STUDY\.md|RESULTS\.md)([^"]*)"', page) == []
    for name in ("RESULTS.md", "STUDY.md"):
        text = (docs / name).read_text(encoding="utf-8")
        assert page.count("data:image/png") >= text.count("](images/")
        cells = [cell.strip() for line in text.splitlines() if line.startswith("| ") for cell in line.split("|")]
        shown = markup.unescape(page)
        assert [cell for cell in cells if re.search(r"\d", cell) and cell not in shown] == []


def test_a_missing_picture_is_no_page(tmp_path):
    with pytest.raises(FileNotFoundError):
        html("![x](images/none.png)", tmp_path, "x")


def test_the_place_of_the_random_scale():
    def row(stated, valid, frechet):
        return {"blocks": [{"stated": stated, "valid": valid}], "frechet": frechet}

    scales = {"2": row(0.8, 0.8, 3.0), "3": row(0.9, 0.9, 2.0), "4": row(0.9, 0.7, 5.0), "5": row(0.7, 0.7, 1.0)}
    scales |= {"U(2, 5)": row(0.85, 0.95, 9.0), "1": row(1.0, 1.0, 0.0)}  # no scale of the paper's counts
    assert table_1.ranks({"scales": scales}) == {"stated right": 3, "valid": 1, "Fréchet": 5}


@pytest.mark.slow
def test_scales_are_measured_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(teacher_scale, "SCALES", (1.0, (2.0, 5.0)))
    call = ["--json", str(tmp_path / "scale.json"), "--count", "2", "--steps", "2"]
    assert teacher_scale.main(call) == 0 and "2 scales, 2 measured now" in capsys.readouterr().out
    assert teacher_scale.main(call) == 0 and "2 scales, 0 measured now" in capsys.readouterr().out
