"""The comparison of methods: the same effort for each, the rule, other seeds, and the page."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from evaluation import STUDENT

from experiments.methods import __main__ as command
from experiments.methods.page import tables
from experiments.methods.results import PLAIN, Comparison
from experiments.methods.settings import REPORTING, SETTINGS, TUNING, Setting, choose
from experiments.negatives.settings import FOUR_STEPS
from experiments.sampling import few_steps, one_step
from experiments.shapes.world import SHAPES
from experiments.tables import filled
from snoopi_core.guidance.nag import BLEND, TAU
from training.models.backbone import fingerprint
from training.models.guidance.methods import METHODS
from training.models.loading import load_backbone


def test_every_method_has_the_same_effort_and_other_seeds_than_those_that_are_reported():
    assert {len(several) for several in SETTINGS.values()} == {8} and set(SETTINGS) <= set(METHODS)
    names = [str(each) for several in SETTINGS.values() for each in several]
    assert len(set(names)) == len(names)
    seeds = [{start + n for start in part.seeds for n in range(part.images)} for part in (TUNING, REPORTING)]
    assert not seeds[0] & seeds[1]


def test_the_rule():
    kept = {"weak": 1.0, "good": 0.96, "strong": 0.9}
    assert choose(kept, {"weak": 0.2, "good": 0.7, "strong": 0.8}) == "good"
    assert choose({"a": 0.9, "b": 0.5}, {"a": 0.5, "b": 0.8}) == "a"  # none keeps enough: 0.45 against 0.40
    assert choose({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.5}) == "a"


@pytest.mark.parametrize("steps", [1, 4])
def test_settings_go_through_the_methods_own_code(steps):
    """The published parameters are the method's own; others change the picture."""
    model = load_backbone(STUDENT)

    def picture(setting):
        return command.generator(model, setting, steps)(["a green shape"], [5], "triangle")

    for name, others, more in (
        ("nag", {"tau": TAU, "blend": BLEND}, {"tau": 5.0}),
        ("vsf", {"beta": 0.0}, {"beta": 1.0}),
    ):
        got = picture(Setting(method=name, strength=2.0, others=others))
        expected = one_step(model, name, 2.0) if steps == 1 else few_steps(model, FOUR_STEPS, name, 2.0)
        assert torch.equal(got, expected(["a green shape"], [5], "triangle"))
        assert not torch.equal(got, picture(Setting(method=name, strength=2.0, others={**others, **more})))


def _counts(clean, images=10):
    rows = [clean]
    return {
        "absent": rows,
        "kept": [[images] * len(clean)],
        "valid": rows,
        "clean": rows,
        "entropy": [1.0] * len(clean),
    }


def test_settings_are_chosen_on_the_tuning_seeds_and_without_the_pairs_group():
    """For colours b is better, for shapes a: each is judged by the choice of the other."""
    tuning = {"a": _counts([2, 2, 9, 8]), "b": _counts([9, 9, 3, 3]), PLAIN: _counts([0, 0, 0, 0])}
    reporting = {"a": _counts([1, 1, 1, 1]), "b": _counts([5, 5, 5, 5]), PLAIN: _counts([0, 0, 0, 0])}
    found = Comparison(
        {
            "pairs": [{"group": each} for each in ("colour", "colour", "shape", "shape")],
            "settings": {"nasa": ["a", "b"]},
            "protocols": {part: {"images": 10, "seeds": [0]} for part in ("tuning", "reporting")},
            "tuning": tuning,
            "reporting": reporting,
        }
    )
    assert found.chosen("nasa") == "b" and found.chosen("nasa", ending="a") == "a"
    assert found.chosen_elsewhere("nasa") == ["a", "a", "b", "b"]
    assert found.held_out("nasa", "clean") == pytest.approx([0.1, 0.1, 0.5, 0.5])
    assert found.needed() == [PLAIN, "b", "a"]


@pytest.mark.parametrize("ending", ["", "-4"])
def test_the_tables_in_docs_are_those_of_the_numbers(pack_root, ending):
    found = Comparison(json.loads((pack_root / f"docs/data/methods{ending}.json").read_text(encoding="utf-8")))
    assert found.found["settings"] == {name: [str(each) for each in several] for name, several in SETTINGS.items()}
    page = (pack_root / "docs/METHODS.md").read_text(encoding="utf-8")
    assert page == filled(page, {name + ending: content for name, content in tables(found).items()})


@pytest.mark.slow
def test_what_was_measured_is_kept_and_other_numbers_are_refused(tmp_path, monkeypatch, capsys):
    few = {name: SETTINGS[name][2:3] for name in ("nasa", "nag")}
    monkeypatch.setattr(command, "SETTINGS", few)
    monkeypatch.setattr(command, "tables", lambda found: {"chosen": "x\n"})
    monkeypatch.setattr(command, "draw", lambda *_: None)
    path, pairs = tmp_path / "m.json", tmp_path / "n.json"
    rows = [asdict(pair) for pair in SHAPES.fixed[1:3]]
    source = {"fingerprint": fingerprint(load_backbone(STUDENT).network), "reader": SHAPES.reader, "pairs": rows}
    pairs.write_text(json.dumps(source), encoding="utf-8")
    call = [
        STUDENT,
        "--world=shapes",
        "--json",
        str(path),
        "--pairs",
        str(pairs),
        "--page",
        str(tmp_path / "M.md"),
        "--tuning-images=1",
    ]
    assert command.main([*call, "--images=1"]) == 0
    before = path.read_bytes()
    content = json.loads(before)
    content["reporting"].pop(
        "nag 4 tau 2.5 blend 0.75" if "nag 4 tau 2.5 blend 0.75" in content["reporting"] else PLAIN
    )
    path.write_text(json.dumps(content), encoding="utf-8")
    assert command.main([*call, "--images=1"]) == 0 and json.loads(path.read_bytes()) == json.loads(before)
    with pytest.raises(SystemExit, match="2"):
        command.main([*call, "--images=2"])
    assert "choose another --json" in capsys.readouterr().err
