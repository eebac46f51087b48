"""The recommended alpha: measured, chosen, and written into a copy of the shapes' student; nothing else changes."""

import shutil
from pathlib import Path

import pytest
import torch
from evaluation import STUDENT, error_of, evaluate
from published import save_folder
from safetensors.torch import save_file

from snoopi_core.formats.checkpoint import read_checkpoint, read_metadata
from snoopi_core.formats.tensor_file import open_tensor_file
from training.evaluate.alpha import choose_alpha, write_alpha
from training.models.loading import load_backbone


def test_the_smallest_of_the_best():
    assert choose_alpha({0.2: 0.4, 0.5: 0.91, 0.8: 0.92, 1.2: 0.6}) == 0.5
    assert choose_alpha({0.2: 0.4, 0.5: 0.8, 0.8: 0.92}) == 0.8
    with pytest.raises(ValueError, match=r"no alpha of 0\.2, 0\.5 removes anything"):
        choose_alpha({0.2: 0.0, 0.5: 0.0})


def test_alpha_is_measured_and_written(pairs_file, tmp_path, capsys):
    path = tmp_path / "student.safetensors"
    shutil.copy(STUDENT, path)
    write_alpha(path, 0.01)
    words = ("alpha", path, "--pairs", pairs_file, "--judge", "shapes", "--count", 2, "--alphas", 0.05, 0.5, "--cpu")
    evaluate(*words, "--dry-run")
    assert "recommended alpha: 0.5" in capsys.readouterr().out
    assert read_metadata(path).recommended_alpha == 0.01
    evaluate(*words)
    assert "0.01 -> 0.5" in capsys.readouterr().err
    before, after = open_tensor_file(Path(STUDENT)), open_tensor_file(path)
    assert read_metadata(path) == read_metadata(STUDENT).model_copy(update={"recommended_alpha": 0.5})
    others = [{k: v for k, v in file.metadata.items() if k != "snoopi.model"} for file in (before, after)]
    assert others[0] == others[1]
    weights = [file.read() for file in (before, after)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert weight.dtype == weights[1][name].dtype and torch.equal(weight, weights[1][name])
    assert read_checkpoint(path).metadata.recommended_alpha == 0.5
    assert load_backbone(str(path)).recipe == load_backbone(STUDENT).recipe
    assert [entry.name for entry in tmp_path.iterdir()] == ["student.safetensors"]


def test_nothing_is_measured_if_the_result_cannot_be_written(tmp_path, pairs_file, capsys):
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    content = other.read_bytes()
    assert "is not a file of this project" in error_of(capsys, "alpha", other)
    assert other.read_bytes() == content
    assert "no model at" in error_of(capsys, "alpha", tmp_path / "nowhere.safetensors")
    assert "has no unet/config.json" in error_of(capsys, "alpha", tmp_path)
    folder = save_folder(tmp_path / "model", "sd15")
    assert "is not a file of this project: an alpha can be measured" in error_of(capsys, "alpha", folder)
    shutil.rmtree(folder)
    copy = tmp_path / "student.safetensors"
    shutil.copy(STUDENT, copy)
    content = copy.read_bytes()
    words = ("alpha", copy, "--pairs", pairs_file, "--judge", "shapes", "--count", 1, "--cpu", "--alphas")
    assert "expected numbers above 0" in error_of(capsys, *words, 0)
    assert "removes anything" in error_of(capsys, *words, 0.0001)
    # what a student of photographs needs is the default: another world's pairs would give it a meaningless alpha
    assert "of ViT-H-14 are missing" in error_of(capsys, "alpha", copy, "--clip-weights", str(tmp_path / "gone.pt"))
    assert "the judge people needs two runs" in error_of(capsys, *words, 0.5, "--judge", "people")
    assert copy.read_bytes() == content
