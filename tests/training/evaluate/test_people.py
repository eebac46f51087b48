"""People as judges, on the real page in a real browser: methods are hidden, the order is shuffled, and answers can be
undone, continued and counted."""

import json
import shutil

import pytest
from evaluation import error_of, evaluate
from live_browser import new_page

from training.evaluate.judges.people import names_of
from training.evaluate.judges.shapes import judge
from training.evaluate.sets.image_files import read_image
from training.evaluate.sets.manifest import find_sets, read_manifest

pytestmark = pytest.mark.browser


def correct_keys(folder):
    """The correct answers by the pixel rules; image name: key."""
    keys = {}
    for place in find_sets([folder]):
        manifest = read_manifest(place)
        names = names_of(place, manifest)
        for row in manifest.images:
            [verdict] = judge([read_image(place / row.file)], manifest.pairs[row.pair])
            key = "1" if not verdict.absent else "2" if verdict.kept else "3"
            keys[names[row.file]] = key
    return keys


def test_the_page_hides_methods_and_its_answers_are_counted(removal_sets, chromium, tmp_path, capsys):
    page_file = removal_sets / "people.html"
    evaluate("removal", removal_sets, "--judge", "people", "--page", page_file)
    evaluate(
        "removal", removal_sets, "--judge", "people", "--page", page_file
    )  # the command's own page may be overwritten
    keys = correct_keys(removal_sets)
    assert len(keys) == 36 and len(set(keys.values())) > 1
    page = new_page(chromium, 1280, 720)
    page.goto(page_file.as_uri())
    items = page.evaluate("items")
    assert {item["id"] for item in items} == keys.keys()
    methods = [item["src"].split("/")[0] for item in items]
    assert methods != sorted(methods) and len(set(methods[:9])) > 1
    for n, item in enumerate(items):
        assert page.evaluate("current()") == n
        page.wait_for_function("seen()")
        assert page.evaluate("document.getElementById('picture').naturalWidth") == 64
        seen = page.inner_text("body")
        assert item["not"] in seen and "nasa" not in seen and "cfg" not in seen
        if n == 5:
            bottom = "Math.max(...['back', 'save', 'load'].map(id => byId(id).getBoundingClientRect().bottom))"
            assert page.evaluate(bottom) <= 720
            page.screenshot(path=tmp_path / "people.png")
            page.keyboard.press("9")  # no answer
            page.keyboard.press("1")
            page.wait_for_function("current() === 6 && seen()")
            page.keyboard.press("Backspace")
        if n == 20:
            page.reload()  # answers survive a closed tab
        page.wait_for_function(f"current() === {n} && seen()")  # an image cannot be judged before it has loaded
        page.keyboard.press(keys[item["id"]])
    assert "All images are judged" in page.inner_text("body")
    with page.expect_download() as download:
        page.click("#save")
    answers = tmp_path / "answers.json"
    download.value.save_as(answers)
    page.close()
    assert json.loads(answers.read_text(encoding="utf-8"))["answers"] == keys

    judged = ("removal", removal_sets, "--judge", "people", "--out", tmp_path / "people.json", "--answers")
    evaluate(*judged, answers)
    evaluate("removal", removal_sets, "--judge", "shapes", "--out", tmp_path / "rules.json")
    people, rules = (json.loads((tmp_path / f"{n}.json").read_text(encoding="utf-8")) for n in ("people", "rules"))
    for one, other in zip(people["sets"], rules["sets"], strict=True):
        assert one["means"]["all"]["absent"] == other["means"]["all"]["absent"]
    assert people["judge"] == {"name": "people", "people": 1, "unanimous": 1.0, "unsure": 0.0}

    # two more people, who answer "not removed" everywhere, outvote the first
    harsh = json.loads(answers.read_text(encoding="utf-8"))
    harsh["answers"] = dict.fromkeys(harsh["answers"], "1")
    (tmp_path / "harsh.json").write_text(json.dumps(harsh), encoding="utf-8")
    evaluate(*judged, answers, tmp_path / "harsh.json", tmp_path / "harsh.json")
    outvoted = json.loads((tmp_path / "people.json").read_text(encoding="utf-8"))
    assert all(row["means"]["all"]["absent"]["share"] == 0.0 for row in outvoted["sets"])
    assert outvoted["judge"]["people"] == 3 and 0 < outvoted["judge"]["unanimous"] < 1

    unsure = json.loads(answers.read_text(encoding="utf-8"))
    unsure["answers"] = dict.fromkeys(unsure["answers"], "5")
    (tmp_path / "unsure.json").write_text(json.dumps(unsure), encoding="utf-8")
    evaluate(*judged, answers, tmp_path / "unsure.json")  # who is unsure does not vote
    found = json.loads((tmp_path / "people.json").read_text(encoding="utf-8"))
    assert [row["means"] for row in found["sets"]] == [row["means"] for row in people["sets"]]
    assert found["judge"] == {"name": "people", "people": 2, "unanimous": 0.0, "unsure": 0.5}

    harsh["answers"].popitem()
    for changed, expected in (
        (harsh, "1 of 36 images have no answer"),
        (harsh | {"images": "others"}, "about other images"),
        (harsh | {"answers": {"x": "7"}}, "answer '7' is not known"),
        ([], "holds no answers"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(changed), encoding="utf-8")
        assert expected in error_of(capsys, *judged, tmp_path / "wrong.json")
    (tmp_path / "mine.html").write_text("mine", encoding="utf-8")
    words = ("removal", removal_sets, "--judge", "people", "--page", tmp_path / "mine.html")
    assert "was not written by this command" in error_of(capsys, *words)
    assert (tmp_path / "mine.html").read_text(encoding="utf-8") == "mine"


def test_the_page_shows_special_characters_and_asks_again_after_a_key_before_the_image(
    removal_sets, chromium, tmp_path
):
    copy, negative = tmp_path / "copy", '<!--<script> $& "it" </script>'
    for name in ("none", "nasa-1"):
        shutil.copytree(removal_sets / name, copy / name)
        path = copy / name / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["pairs"] = [{"positive": "a <b>", "negative": negative} for _ in manifest["pairs"]]
        path.write_text(json.dumps(manifest), encoding="utf-8")
    evaluate("removal", copy, "--judge", "people")
    page = new_page(chromium, 900, 900)
    page.goto((copy / "people.html").as_uri())
    items = page.evaluate("items")
    page.wait_for_function("seen()")
    assert page.inner_text("#question") == f"Prompt: a <b>. Unwanted: {negative}."
    assert f"It shows {negative}" in page.inner_text("#keys")
    for _ in range(3):
        page.keyboard.down("1")  # held down, so the browser repeats the key
        page.wait_for_function("seen()")
    page.keyboard.up("1")
    assert page.evaluate("current()") == 1
    (copy / items[3]["src"]).unlink()
    page.wait_for_function("seen()")
    page.evaluate("byId('picture').style.visibility = 'hidden'")  # as before it has loaded
    page.keyboard.press("2")
    page.evaluate("byId('picture').onload()")
    assert page.evaluate("current()") == 1 and "Please answer again" in page.inner_text("body")
    for n in (1, 2):
        page.wait_for_function(f"seen() && current() === {n}")
        page.keyboard.press("2")
        assert "Please answer again" not in page.inner_text("body")
    page.wait_for_function("document.getElementById('question').textContent.includes('cannot be shown')")
    page.keyboard.press("2")
    page.click("#keys button >> nth=3")
    assert page.evaluate("current()") == 3
    page.close()
