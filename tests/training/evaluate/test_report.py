"""The report of real measurements in a real browser: every picture is shown, and every number is the measured one."""

import json
import re
import shutil

import pytest
from evaluation import error_of, evaluate
from live_browser import new_page
from live_pack import ROOT
from tiny_clip import write_tiny_clip

from training.evaluate.report.collect import Collected, collect
from training.evaluate.report.command import html
from training.evaluate.report.paper import TABLE_4_8, TABLE_5, TABLE_7
from training.evaluate.report.pictures import curves, grids
from training.evaluate.report.removals import removal_tables
from training.evaluate.report.tables import Table, preference


@pytest.fixture(scope="module")
def measured(removal_sets, tmp_path_factory):
    """Images, removals and scores of a model with the name of the paper's, in one folder."""
    out = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(removal_sets, out, ignore=shutil.ignore_patterns("*.html"))
    for folder in out.iterdir():
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        (folder / "manifest.json").write_text(json.dumps(manifest | {"title": "PG-SB SD2.1"}), encoding="utf-8")
    clip = write_tiny_clip(out.parent / "clip")
    evaluate("removal", out, "--judge", "shapes")
    evaluate(
        *("score", out, "--metrics", "clip", "hps-v2.1", "--clip-model", f"local-dir:{clip}", "--clip-weights", ""),
        *("--hps-model", f"local-dir:{clip}", "--hps-v2.1-weights", clip / "open_clip_model.safetensors"),
    )
    return out


@pytest.mark.browser
def test_the_page_is_self_contained_and_shows_every_picture(measured, chromium, tmp_path):
    path = tmp_path / "alone" / "report.html"
    evaluate("report", measured, "--out", path, "--title", "A <report>", "--protocol", "paper")
    page = new_page(chromium, 1300, 900)
    failed, asked = [], []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    page.screenshot(path=ROOT / "out" / "screenshots" / "evaluation_report.png", full_page=True)
    assert widths and min(widths) > 300 and not failed
    assert all(url.startswith("data:") for url in asked if url != path.as_uri())
    assert page.inner_text("h1") == "A <report>"
    scores = {row["method"]: row["scores"] for row in json.loads((measured / "scores.json").read_text())["sets"]}
    row = page.locator("tr").filter(has_text="PG-SB SD2.1 + NASA (nasa:1)").first.inner_text().split("\t")
    assert row[1:5] == ["8.83", "0.34", "0.57", "0.50"]
    assert row[5:] == ["not run", f"{scores['nasa:1']['clip']['value']:.3f}", "not run", "not run", "12"]
    # only scrollable elements are wider than the window
    assert page.evaluate("document.documentElement.scrollWidth") <= 1300
    text = page.inner_text("body")
    for part in ("SwiftBrush v2", "not run", "12 images; the paper has", "Cost", "Versions", "Table 1"):
        assert part in text
    page.close()


def test_the_two_pages_agree(measured, tmp_path):
    evaluate("report", measured, "--out", tmp_path / "report.html")
    html, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    cells = re.findall(r"<td>(.*?)</td>", html)
    lines = [line for line in text.splitlines() if line.startswith("| ") and " --- " not in line]
    in_text = [cell for line in lines for cell in line.strip("| ").split(" | ")]
    heads = re.findall(r"<th>(.*?)</th>", html)
    assert len(cells) > 100 and len(in_text) >= len(cells)
    known = {cell.replace("-&gt;", "->") for cell in [*cells, *heads]}
    assert not [cell for cell in in_text if cell.strip() and cell.strip() not in known]
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert pictures and all((tmp_path / picture).stat().st_size > 1000 for picture in pictures)
    evaluate("report", measured, "--out", tmp_path / "report.html")  # the command's own report may be overwritten


def test_removals_equal_the_measured_ones(measured):
    [means, pairs] = removal_tables(collect([measured]), everything=False)
    result = json.loads((measured / "removal-shapes.json").read_text(encoding="utf-8"))
    by = {row["method"]: row["means"]["all"] for row in result["sets"]}
    for row in means.rows:
        assert row[3].startswith(f"{by[row[1]]['absent']['share']:.2f} [")
    assert len(pairs.rows) == 3 and pairs.head[2:] == [
        f"{method}: absent, clean" for method in ("none", "cfg:1.5", "nasa:1")
    ]


def test_the_papers_removals_average_to_its_means():
    """Table 3 follows from Table 7, from only the three pairs with the lowest baselines."""
    [table] = removal_tables(Collected(), everything=True)
    lower, everything = table.rows[-2:]
    assert lower[2:6] == ["43 -> 97", "27 -> 100", "25 -> 100", "38 -> 92"]
    assert [cell.split(" ")[0] for cell in everything[2:6]] == ["50"] * 4
    assert all(row[-1] == "not run" for row in table.rows)
    assert len(TABLE_7) == 4 and len(TABLE_5) == 12 and len(TABLE_4_8) == 20
    for name, (*styles, average) in TABLE_4_8.items():
        assert abs(sum(styles) / 4 - average) < 0.02, name


def test_pictures_require_their_sets(measured):
    found = collect([measured, measured, measured / "none"])  # duplicates are removed
    assert (len(found.sets), len(found.scores), len(found.removals)) == (3, 3, 1)
    assert len(grids(found, 2)) == 1
    assert curves(found) == {}  # a curve needs several strengths of a method


def test_tables_escape_markup():
    table = Table(title="a <b>", head=["x"], rows=[["1 | 2 <i>"]])
    assert "&lt;i&gt;" in html("", "", [table], {}) and "1 \\| 2 &lt;i>" in table.markdown()
    assert "| a b |" in Table(title="", head=["x"], rows=[["a\nb"]]).markdown()


def test_hpsv2_average_is_the_mean_of_four_styles():
    styles = {"anime": 28.0, "photo": 27.0, "concept-art": 26.0, "paintings": 25.0, "drawbench": 10.0}
    score = {"value": 20.0, "styles": {name: {"value": value} for name, value in styles.items()}}
    row = {"title": "mine", "method": "none", "images": 9, "scores": {"hps-v2.1": score}, "shortfalls": {}}
    [table] = preference(Collected(scores=[row | {"not_run": {}}]), everything=False)
    assert table.rows[-1][-6:] == ["28.00", "27.00", "26.00", "25.00", "26.50", "9"]


def test_invalid_results_are_refused(measured, tmp_path, capsys):
    assert "no such folder" in error_of(capsys, "report", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "other.json").write_text("[]", encoding="utf-8")
    assert "nothing to report" in error_of(capsys, "report", tmp_path / "empty", "--out", tmp_path / "r.html")
    (tmp_path / "mine.html").write_text("mine", encoding="utf-8")
    assert "was not written by this command" in error_of(capsys, "report", measured, "--out", tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text(encoding="utf-8") == "mine"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "scores.json").write_text('{"kind": "scores", "format": 2}', encoding="utf-8")
    assert "measure it again" in error_of(capsys, "report", tmp_path / "bad", "--out", tmp_path / "r.html")
