"""A guidance method is one file and one entry; all commands work with a new entry."""

from pkgutil import resolve_name

import pytest
from evaluation import STUDENT, evaluate, pixels

from training.evaluate.cli import parser
from training.evaluate.report.collect import collect
from training.evaluate.report.pictures import curves
from training.models.guidance.attention import GuidanceProcessor
from training.models.guidance.methods import METHODS, Method, MethodSpec, method_label

FILE = """
from training.models.guidance.attention import GuidanceProcessor


class HalfProcessor(GuidanceProcessor):
    def combine(self, z_pos, z_neg):
        return z_pos - self.strength / 2 * z_neg


def constant_score(pictures, prompts):
    return [1.0] * len(pictures)
"""


@pytest.fixture
def half(tmp_path, monkeypatch):
    """A made-up method: NASA at half the strength."""
    (tmp_path / "half_method.py").write_text(FILE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    entry = MethodSpec(
        name="half",
        formula="Z+ - strength / 2 Z-",
        label=" + half",
        strength="BETA",
        neutral=0.0,
        processor="half_method:HalfProcessor",
    )
    monkeypatch.setitem(METHODS, "half", entry)


def test_a_new_method_needs_one_entry(half, tmp_path, capsys):
    assert str(Method.parse("half:0.5")) == "half:0.5"
    with pytest.raises(ValueError, match=r"half:BETA \(Z\+ - strength / 2 Z-\)"):
        Method.parse("other")
    with pytest.raises(SystemExit):
        parser().parse_args(["generate", "--help"])
    assert "half:BETA" in capsys.readouterr().out

    pairs, out = tmp_path / "pairs.json", tmp_path / "out"
    pairs.write_text('[{"positive": "a shape in the center", "negative": "red"}]', encoding="utf-8")
    words = ("generate", STUDENT, "--pairs", pairs, "--count", 2, "--title", "Student", "--cpu", "--out", out)
    evaluate(*words, "--methods", "none", "nasa:0.5", "half:0", "half:1", "half:2")
    images = {folder.name: [pixels(path) for path in sorted(folder.glob("*.png"))] for folder in out.iterdir()}
    for one, other in (("half-0", "none"), ("half-1", "nasa-0.5")):
        assert all((a == b).all() for a, b in zip(images[one], images[other], strict=True))
    assert any((a != b).any() for a, b in zip(images["half-1"], images["none"], strict=True))

    evaluate("removal", out, "--judge", "shapes")
    evaluate("score", out, "--metrics", "--plugins", "half_method:constant_score")
    evaluate("report", out, "--out", out / "report.html")
    assert "| Student + half | half:1 |" in (out / "report.md").read_text(encoding="utf-8")
    assert any(title.startswith("Removal over strength") for title in curves(collect([out])))


def test_every_entry_can_be_imported_and_acts_in_one_way():
    for name, spec in METHODS.items():
        assert spec.name == name
        assert bool(spec.processor) + bool(spec.x0) == int(name != "none" and not spec.many_steps), name
        if spec.processor:
            assert issubclass(resolve_name(spec.processor), GuidanceProcessor)
        if spec.x0:
            assert callable(resolve_name(spec.x0))


def test_the_current_entries():
    neutral = {"nasa": 0.0, "cfg": 1.0, "embeddings": 0.0, "nag": 0.0, "vsf": None, "orthogonal": 0.0}
    assert {name: METHODS[name].neutral for name in neutral} == neutral
    assert [method_label(text) for text in ("none", "nasa:1", "embeddings:1", "teacher-negative:25:7.5", "odd:3")] == [
        *("", " + NASA", " - embeddings", " 25 steps + negative", " odd:3"),
    ]
