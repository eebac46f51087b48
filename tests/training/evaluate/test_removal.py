"""Removals counted by pixel rules, by a classifier and by a plug-in on the same images."""

import json
import shutil

import pytest
import torch
from evaluation import STUDENT, error_of, evaluate
from PIL import Image
from tiny_clip import write_tiny_clip

from training.evaluate.judges import Verdict, removal
from training.evaluate.judges.intervals import wilson
from training.evaluate.judges.shapes import judge, stated
from training.evaluate.judges.zero_shot import ZeroShot
from training.evaluate.metrics.open_clip_model import OpenClip
from training.evaluate.sets.manifest import read_manifest
from training.evaluate.sets.pairs import PAIRS, Pair, load_pairs
from training.prompts.shapes.captions import full_caption, phrase, tags
from training.prompts.shapes.scene import ATTRIBUTES, render, sample_scenes


def always(pictures, pair):
    """A plug-in: nothing unwanted is in the image, and nothing wanted either."""
    return [Verdict(absent=True, kept=False, valid=True) for _ in pictures]


def unsure(pictures, pair):
    return [Verdict(absent=n % 2 == 0) for n in range(len(pictures))]


def broken(pictures, pair):
    return [True] * len(pictures)


@pytest.fixture(scope="module")
def result(removal_sets, tmp_path_factory):
    out = tmp_path_factory.mktemp("removal") / "removal.json"
    evaluate("removal", removal_sets, "--judge", "shapes", "--out", out)
    return json.loads(out.read_text(encoding="utf-8"))


def test_nasa_removes_what_cfg_does_not(result):
    by = {row["method"]: row for row in result["sets"]}
    assert list(by) == ["none", "cfg:1.5", "nasa:1"]
    assert by["none"]["means"]["all"]["absent"]["share"] == 0.0
    assert by["nasa:1"]["means"]["all"]["absent"]["share"] == 1.0
    assert by["nasa:1"]["means"]["all"]["kept"]["share"] == 1.0
    assert by["cfg:1.5"]["means"]["all"]["absent"]["share"] <= 0.5
    assert by["nasa:1"]["means"]["lower"]["images"] == 4  # the pair with the lowest baseline of three
    low, high = wilson(1.0, 12)
    assert by["nasa:1"]["means"]["all"]["absent"] == {"share": 1.0, "low": low, "high": high}
    assert result["kind"] == "removal" and result["judge"] == {"name": "shapes"} and result["versions"]["torch"]


def test_a_blank_image_is_not_a_clean_removal(removal_sets, tmp_path):
    evaluate("removal", removal_sets, "--judge", f"{__name__}:always", "--out", tmp_path / "r.json")
    for row in json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["sets"]:
        assert row["means"]["all"]["absent"]["share"] == 1.0 and row["means"]["all"]["clean"]["share"] == 0.0


def test_undecided_images_are_not_counted(removal_sets, tmp_path, capsys):
    evaluate("removal", removal_sets, "--judge", f"{__name__}:unsure", "--out", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    means, pairs = result["sets"][0]["means"]["all"], result["pairs"]
    assert means["absent"]["share"] == 0.5 and means["kept"] is means["valid"] is means["clean"] is None
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["absent", "kept", "valid", "clean"]
    low, high = wilson(0.5, 12)
    assert shown[2].split() == ["none", "0.50", f"[{low:.2f},", f"{high:.2f}]", "-", "-", "-"]
    assert [line for line in shown if line.startswith(("all", "the "))] == ["all 3 pairs", "the 1 with most to remove"]
    text = " ".join(shown)
    assert "Pairs with most to remove: the half whose images without the" in text and "alpha is how strongly" in text
    assert "pairs (prompt - negative): " in text and all(f"{p['positive']} - {p['negative']}" in text for p in pairs)


def test_the_papers_means_follow_from_its_own_table():
    """Table 3's 38 -> 92 is the mean over those three of Table 7's six pairs that have the lowest baselines."""
    before, after = (42, 58, 39, 61, 32, 68), (81, 88, 96, 79, 99, 99)
    rows = [[removal._with_interval(v / 100, 100) for v in column] for column in (before, after)]
    rows = [[{"images": 100, **dict.fromkeys(removal.SHARES, value)} for value in column] for column in rows]
    lower = removal.lower_half(rows[0])
    assert lower == [0, 2, 4]
    assert [round(100 * removal.mean([column[n] for n in lower])["absent"]["share"]) for column in rows] == [38, 92]
    assert round(100 * removal.mean(rows[0])["absent"]["share"]) == 50


def test_the_pixel_rules_recognise_scenes_and_parse_words():
    scenes = sample_scenes(24, torch.Generator().manual_seed(3))
    pictures = [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in render(scenes)]
    for scene, picture in zip(scenes, pictures, strict=True):
        caption, values = full_caption(scene)
        assert stated(caption) == values == stated(tags(values, torch.Generator().manual_seed(0)))
        there = Pair(positive=caption, negative=phrase("shape", scene.value("shape")))
        other = next(value for value in ATTRIBUTES["background"] if value != scene.value("background"))
        gone = Pair(positive=caption, negative=phrase("background", other))
        assert judge([picture], there) == [Verdict(absent=False, kept=True, valid=True)]
        assert judge([picture], gone) == [Verdict(absent=True, kept=True, valid=True)]
    with pytest.raises(ValueError, match="know no 'male'"):
        judge(pictures[:1], PAIRS["paper"][0])


def test_the_classifier_takes_the_nearest_sentence(tmp_path):
    folder = write_tiny_clip(tmp_path / "clip")
    clip = OpenClip(f"local-dir:{folder}", "", torch.device("cpu"), option="--clip-weights")
    pictures = [Image.effect_noise((40, 40), 10.0 * n).convert("RGB") for n in range(1, 9)]
    pair = PAIRS["paper"][4]
    (unwanted, otherwise), (kept, lost) = pair.classes()
    seen = torch.cat([clip.model.encode_image(clip.prepare(picture)[None]) for picture in pictures])
    seen = seen / seen.norm(dim=1, keepdim=True)

    def nearest(one, other):
        text = clip.model.encode_text(clip.tokenize([*one, *other]))
        return [int(n) < len(one) for n in (seen @ (text / text.norm(dim=1, keepdim=True)).T).argmax(dim=1)]

    verdicts = ZeroShot(clip)(pictures, pair)
    assert [not verdict.absent for verdict in verdicts] == nearest(unwanted, otherwise)
    assert [verdict.kept for verdict in verdicts] == nearest(kept, lost)


def test_the_classifier_as_a_command(removal_sets, tmp_path):
    folder = write_tiny_clip(tmp_path / "clip")
    words = ("removal", removal_sets, "--judge", "clip", "--clip-model", f"local-dir:{folder}", "--clip-weights", "")
    evaluate(*words, "--out", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert result["judge"]["model"].endswith("clip") and len(result["sets"]) == 3
    assert all(row["means"]["all"]["clean"] is not None for row in result["sets"])


def test_the_papers_six_pairs_are_built_in(tmp_path):
    assert [(pair.positive, pair.negative) for pair in load_pairs("paper")] == [
        *(("A photo of a person", word) for word in ("male", "female", "young", "old")),
        *(("A photo of a pet", word) for word in ("cat", "dog")),
    ]
    for content, expected in (
        ("[]", "empty"),
        ("{", "Invalid JSON"),
        ('[{"positive": "a"}]', "0.negative"),
        ('[{"positive": "a", "negative": "b", "colour": "c"}]', "colour"),
    ):
        (tmp_path / "pairs.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=expected):
            load_pairs(str(tmp_path / "pairs.json"))


def test_sets_that_cannot_be_judged_are_refused(removal_sets, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(removal_sets, copy)
    judged = ("removal", copy, "--judge", "shapes")
    (copy / "none" / "000002.png").write_bytes((copy / "none" / "000002.png").read_bytes()[:300])
    assert "1 of 12 images are missing or damaged, first 000002.png" in error_of(capsys, *judged)
    Image.new("RGB", (32, 32)).save(copy / "none" / "000002.png")
    assert "images of 2 sizes: 64x64" in error_of(capsys, *judged)
    shutil.rmtree(copy / "none")
    assert "cfg-1.5 has nothing to compare with" in error_of(capsys, *judged)
    assert "no such folder" in error_of(capsys, "removal", tmp_path / "nowhere", "--judge", "shapes")
    (tmp_path / "empty").mkdir()
    assert "the folder holds nothing" in error_of(capsys, "removal", tmp_path / "empty", "--judge", "shapes")
    for name, expected in (
        ("magic", "available: people, clip, shapes"),
        ("nowhere.at:all", "cannot be imported"),
        (f"{__name__}:nothing", "cannot be imported"),
        (f"{__name__}:STUDENT", "is a str"),
        (f"{__name__}:broken", "expected 4"),
    ):
        assert expected in error_of(capsys, "removal", removal_sets, "--judge", name, "--out", tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    words = ("removal", removal_sets, "--judge", f"{__name__}:always", "--out", tmp_path / "mine.json")
    assert "holds no removal" in error_of(capsys, *words)
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == "{}"
    evaluate("generate", STUDENT, "--prompts", "shapes", "--limit", 1, "--methods", "none", "--out", tmp_path / "p")
    assert "was not made for pairs" in error_of(capsys, "removal", tmp_path / "p", "--judge", "shapes")
    assert read_manifest(tmp_path / "p" / "none").pairs == ()
