"""From a student to a report: every command of the README, with the same results on one and on two processes."""

import json
import re
import shlex

import pytest
from evaluation import STUDENT, evaluate, started
from live_browser import new_page
from live_pack import ROOT
from processes import TIMEOUT
from tiny_clip import write_tiny_clip

from training.evaluate.__main__ import main
from training.evaluate.cli import parser
from training.evaluate.generate.student import find_student
from training.evaluate.paper_protocol import apply_protocol

README = (ROOT / "training" / "evaluate" / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (?:accelerate .* -m|python -m) training\.evaluate (.+)$", README, re.MULTILINE)
BUNDLED = [line for line in COMMANDS if "runs/evaluate" in line]


def measured(path):
    """The content of a results file without times and paths."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [{key: value for key, value in row.items() if key != "folder"} for row in content["sets"]]


@pytest.mark.slow
@pytest.mark.browser
def test_generate_score_removal_report(pairs_file, reference, inception, chromium, tmp_path):
    clip = write_tiny_clip(tmp_path / "clip")
    words = ("generate", STUDENT, "--pairs", pairs_file, "--count", 2, "--methods", "none", "nasa", "--cpu")
    running = started(tmp_path / "log", *words, "--batch", 4, "--out", tmp_path / "two", processes=2)
    evaluate(*words, "--batch", 4, "--out", tmp_path / "one")
    for process in running:
        process.join(TIMEOUT)
    output = (tmp_path / "log").read_text(encoding="utf-8")
    assert [process.exitcode for process in running] == [0, 0], output[-3000:]
    for name in ("one", "two"):
        evaluate("removal", tmp_path / name, "--judge", "shapes")
        evaluate(
            *("score", tmp_path / name, "--clip-model", f"local-dir:{clip}", "--clip-weights", ""),
            *("--hps-model", f"local-dir:{clip}", "--hps-v2.0-weights", clip / "open_clip_model.safetensors"),
            *("--metrics", "clip", "hps-v2.0", *(("fid", "prc") if name == "one" else ())),
            *("--reference", reference, "--inception-weights", inception),
        )
    assert measured(tmp_path / "one" / "removal-shapes.json") == measured(tmp_path / "two" / "removal-shapes.json")
    scores = [measured(tmp_path / name / "scores.json") for name in ("one", "two")]
    for one, two in zip(*scores, strict=True):
        assert one["scores"]["clip"] == two["scores"]["clip"]
        assert one["scores"].keys() == {"fid", "prc", "clip", "hps-v2.0"}
    evaluate("report", tmp_path / "one", "--out", tmp_path / "report.html")
    page = new_page(chromium)
    page.goto((tmp_path / "report.html").as_uri())
    assert min(page.evaluate("[...document.images].map(image => image.naturalWidth)")) > 300
    assert "not run" not in page.locator("tr").filter(has_text="snoopi-shapes-student + NASA").first.inner_text()
    page.close()


def test_the_readmes_commands_parse():
    assert len(COMMANDS) >= 12
    for line in COMMANDS:
        apply_protocol(parser().parse_args(shlex.split(line)))


def test_the_readmes_small_world_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [line.split()[0] for line in BUNDLED] == ["generate", "removal", "report", "generate"]
    for line in BUNDLED:
        line = line.replace("--count 4", "--count 1")  # the same with fewer images
        assert main(shlex.split(line)) == 0
    page = (tmp_path / "runs" / "evaluate" / "report.html").read_text(encoding="utf-8")
    assert "Removal over strength" in page and "nasa:0.5" in page


def test_a_run_folder_means_its_exported_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has not exported its student yet"):
        find_student(str(tmp_path))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "student.safetensors").write_bytes(b"")
    assert find_student(str(tmp_path)) == str(tmp_path / "export" / "student.safetensors")
