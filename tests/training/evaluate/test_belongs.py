"""Results are used only with the images they were measured on, and images only with the settings that made them."""

import json
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from evaluation import STUDENT, error_of, evaluate, pictures, started
from filelock import FileLock
from processes import TIMEOUT
from published import published, save_folder

from training.evaluate.sets.manifest import read_manifest


def brightness(pictures, prompts):
    """A plug-in."""
    return [float(np.asarray(picture).mean()) for picture in pictures]


def words(pictures, prompts):
    """Another plug-in."""
    return [float(len(prompt.split())) for prompt in prompts]


def changed(folder, **values):
    path = folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | values), encoding="utf-8")
    return content


def scored(folder, out, plugin):
    evaluate("score", folder, "--out", out, "--metrics", "--plugins", f"{__name__}:{plugin}")
    return [sorted(row["scores"]) for row in json.loads(out.read_text(encoding="utf-8"))["sets"]]


@pytest.fixture
def copy(removal_sets, tmp_path):
    shutil.copytree(removal_sets, tmp_path / "copy", ignore=shutil.ignore_patterns("*.json.tmp", "people.html"))
    return tmp_path / "copy"


def test_scores_of_other_images_are_not_kept(copy, tmp_path):
    out, place = tmp_path / "scores.json", copy / "none"
    both = [f"{__name__}:brightness", f"{__name__}:words"]
    scored(place, out, "brightness")
    assert scored(place, out, "words") == [both]
    shutil.move(copy, tmp_path / "moved")  # the same images in another folder
    place = tmp_path / "moved" / "none"
    assert scored(place, out, "brightness") == [both]
    images = changed(place)["images"]
    changed(place, images=[row | {"prompt": "a ring"} for row in images])  # the same number of images, of another list
    assert scored(place, out, "words") == [both[1:]]
    assert scored(place, out, "brightness") == [both]
    shutil.copy(place / "000000.png", place / "000001.png")
    assert scored(place, out, "words") == [both[1:]]


def test_answers_about_other_images_are_refused(copy, tmp_path, capsys):
    page = copy / "people.html"
    evaluate("removal", copy, "--judge", "people", "--page", page)
    line = next(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("const content"))
    content = json.loads(line.removeprefix("const content = ").rstrip(";"))
    answers = {"images": content["images"], "answers": {item["id"]: "2" for item in content["items"]}}
    (tmp_path / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
    judged = (
        "removal",
        copy,
        "--judge",
        "people",
        "--out",
        tmp_path / "r.json",
        "--answers",
        tmp_path / "answers.json",
    )
    evaluate(*judged)
    shutil.copy(copy / "none" / "000000.png", copy / "none" / "000001.png")
    assert "about other images" in error_of(capsys, *judged)


def test_each_setup_is_compared_with_its_own_plain_images(pairs_file, tmp_path, capsys):
    common = ("generate", STUDENT, "--pairs", pairs_file, "--count", 1, "--cpu")
    evaluate(*common, "--methods", "none", "nasa:0.5", "--out", tmp_path / "one")
    evaluate(*common, "--methods", "none", "nasa:0.5", "--timesteps", 999, 499, "--out", tmp_path / "two")
    places = [tmp_path / "two", tmp_path / "one"]
    evaluate("removal", *places, "--judge", "shapes", "--out", tmp_path / "r.json")
    sets = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["sets"]
    for name in ("one", "two"):
        own = [row for row in sets if row["folder"].startswith(str(tmp_path / name))]
        assert {row["before"] for row in own} == {row["digest"] for row in own if row["method"] == "none"}
    output = error_of(capsys, "removal", tmp_path / "one" / "none", tmp_path / "two" / "nasa-0.5", "--judge", "shapes")
    assert "nasa-0.5 has nothing to compare with" in output


def test_inconsistent_lists_are_refused(copy, capsys):
    judged = ("removal", copy, "--judge", "shapes")
    images = changed(copy / "none")["images"]
    changed(copy / "none", images=[*images, images[3]])
    assert "lists 000003.png twice" in error_of(capsys, *judged)
    changed(copy / "none", images=[row for row in images if row["pair"] != 1])
    assert "its images have pair numbers [0, 2]; expected a number for each image, and images of all 3" in error_of(
        capsys, *judged
    )
    changed(copy / "none", images=[{key: row[key] for key in row if key != "pair"} for row in images])
    assert "have pair numbers [] or none" in error_of(capsys, *judged)


def test_labels_can_change_and_images_cannot(pairs_file, copy):
    before = pictures(copy / "none")
    made = ("generate", STUDENT, "--pairs", pairs_file, "--count", 4, "--methods", "none", "--cpu", "--out", copy)
    evaluate(*made, "--title", "PG-SB SD2.1")
    assert read_manifest(copy / "none").title == "PG-SB SD2.1"
    evaluate(*made)  # other labels stay
    assert read_manifest(copy / "none").title == "PG-SB SD2.1" and pictures(copy / "none") == before


def test_a_later_label_applies_to_earlier_scores(pairs_file, copy, tmp_path):
    evaluate("removal", copy, "--judge", "shapes")
    made = ("generate", STUDENT, "--pairs", pairs_file, "--count", 4, "--methods", "none", "--cpu", "--out", copy)
    evaluate(*made, "--title", "Renamed")
    evaluate("report", copy, "--out", tmp_path / "report.html")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| Renamed | none | 12 |" in text


def test_nothing_is_generated_if_one_folder_is_in_use(pairs_file, tmp_path, capsys):
    (tmp_path / "nasa-0.3").mkdir()
    (tmp_path / "nasa-0.3" / "mine.txt").write_text("mine", encoding="utf-8")
    made = ("generate", STUDENT, "--pairs", pairs_file, "--count", 1, "--cpu", "--out", tmp_path)
    assert "nasa-0.3 is not empty" in error_of(capsys, *made, "--methods", "none", "nasa:0.3")
    assert not (tmp_path / "none").exists() and os.listdir(tmp_path / "nasa-0.3") == ["mine.txt"]


def test_settings_can_change_before_the_first_image(pairs_file, tmp_path, capsys):
    made = ("generate", STUDENT, "--pairs", pairs_file, "--count", 1, "--methods", "none", "--cpu", "--out", tmp_path)
    evaluate(*made)
    for path in (tmp_path / "none").glob("*.png"):
        path.unlink()
    evaluate(*made, "--batch", 2)
    assert read_manifest(tmp_path / "none").batch == 2
    assert "batch: 2 -> 16" in error_of(capsys, *made)


def test_one_run_writes_at_a_time(pairs_file, tmp_path, capsys):
    made = ("generate", STUDENT, "--pairs", pairs_file, "--count", 1, "--methods", "none", "--cpu", "--out", tmp_path)
    (tmp_path / "none").mkdir()
    with FileLock(tmp_path / "none" / ".lock"):
        assert "another process is making images in" in error_of(capsys, *made)
    assert not pictures(tmp_path / "none")
    evaluate(*made)
    assert len(pictures(tmp_path / "none")) == 3


def test_non_finite_images_are_refused(pairs_file, tmp_path, capsys):
    import copy as library

    network = library.deepcopy(published("sd15")["network"])
    network.conv_out.weight.data.fill_(torch.inf)
    folder = save_folder(tmp_path / "model", "sd15", network=network)
    made = ("generate", folder, "--pairs", pairs_file, "--count", 1, "--methods", "none", "--size", 64, "--cpu")
    assert "none gave values that are not finite" in error_of(capsys, *made, "--out", tmp_path / "out")
    assert not pictures(tmp_path / "out" / "none")


def test_ctrl_c_ends_without_a_traceback(pairs_file, tmp_path):
    made = ("generate", STUDENT, "--pairs", pairs_file, "--count", 30, "--methods", "none", "--out", tmp_path / "out")
    [process] = started(tmp_path / "log", *made, signalled=(signal.SIGINT, 1))
    process.join(TIMEOUT)
    output = (tmp_path / "log").read_text(encoding="utf-8")
    assert process.exitcode == 130 and "Traceback" not in output, output[-2000:]
    assert "stopped; run the same command again to continue" in output
    assert not list((tmp_path / "out" / "none").glob(".*.tmp"))


def test_a_full_disk_is_named_in_the_error(pairs_file, tmp_path, capsys):
    made = ("generate", STUDENT, "--prompts", "shapes", "--limit", 1, "--methods", "none", "--cpu", "--out", tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))  # enough for the manifest, not for an image
    try:
        output = error_of(capsys, *made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in output and str(tmp_path / "none" / "000000.png") in output
    assert not list((tmp_path / "none").glob(".*.tmp")) and not pictures(tmp_path / "none")
    evaluate(*made)
    assert len(pictures(tmp_path / "none")) == 1
