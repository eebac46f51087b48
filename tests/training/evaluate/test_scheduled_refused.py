"""What a scheduled evaluation needs and lacks is refused before the training, and by the dry run."""

from __future__ import annotations

import pytest
import torch

from training.pgsb import main

REFUSED = {
    "no weights of CLIP": (["evaluate.metrics=clip"], "evaluate.clip_weights"),
    "no weights of the judge": (["evaluate.metrics=removal"], "ViT-H-14 (3.9 GB) are missing"),
    "no weights of Inception": (
        ["evaluate.metrics=fid", "evaluate.reference={folder}"],
        "weights-inception-2015-12-05-6726825d.pth (96 MB) is missing",
    ),
    "no reference": (["evaluate.metrics=fid"], "give evaluate.reference a folder"),
    "no such reference": (["evaluate.metrics=prc", "evaluate.reference=nowhere.npz"], "nothing at 'nowhere.npz'"),
    "no such judge": (
        ["evaluate.metrics=removal", "evaluate.judge=a.module:judge"],
        "judge 'a.module:judge' cannot be imported",
    ),
    "people": (["evaluate.judge=people"], "cannot judge during a training"),
    "no such pairs": (
        ["evaluate.metrics=removal", "evaluate.judge=shapes", "evaluate.pairs=mine.json"],
        "no pairs at 'mine.json'",
    ),
    "no such prompts": (["evaluate.metrics=clip", "evaluate.prompts=mine.txt"], "evaluate.prompts: nothing at"),
    "a folder without prompts": (
        ["evaluate.metrics=clip", "evaluate.prompts={folder}"],
        "evaluate.prompts, read with prompts.column and prompts.split: no prompts in folder",
    ),
    "no such CLIP": (["evaluate.metrics=clip", "evaluate.clip_model=ViT-Q"], "open_clip has no 'ViT-Q'"),
    "no such tag": (
        ["evaluate.metrics=clip", "evaluate.clip_weights=laion9b"],
        "'laion9b' is neither a file nor a tag",
    ),
    "no alpha": (["evaluate.judge=shapes", "output.recommended_alpha=0"], "give evaluate.alpha, such as 0.3"),
}


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "run"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_is_refused_before_the_training(tiny_run, tmp_path, capsys, monkeypatch, case, dry):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    settings, message = REFUSED[case]
    words = [word.format(folder=tmp_path) for word in settings]
    arguments = tiny_run(tmp_path / "run", "evaluate.every=2", "loop.iterations=2", *words, *["--dry-run"] * dry)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split()), error
    assert not (tmp_path / "run").exists()


def test_everything_that_is_missing_is_told_at_once(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    words = ('evaluate.metrics=["clip","fid","removal"]', f"evaluate.reference={tmp_path}", "evaluate.judge=clip")
    assert main(tiny_run(tmp_path / "run", "evaluate.every=2", *words, "--dry-run")) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert all(each in error for each in ("evaluate.clip_weights", "(96 MB) is missing", "ViT-H-14 (3.9 GB)")), error


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "run"])
def test_pairs_that_the_judge_cannot_judge_are_refused_before_the_training(tiny_run, tmp_path, capsys, dry):
    wrong = tmp_path / "pairs.json"
    wrong.write_text('[{"positive": "a square", "negative": "a moustache"}]', encoding="utf-8")
    words = ("evaluate.every=1", "evaluate.metrics=removal", "evaluate.judge=shapes", f"evaluate.pairs={wrong}")
    assert main(tiny_run(tmp_path / "run", *words, *["--dry-run"] * dry)) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "the pixel rules know no 'a moustache'" in error and "or another judge" in error
    assert not (tmp_path / "run").exists()
