"""The study of negatives: counts against the removal table, resuming, and how the tables are computed."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from evaluation import STUDENT
from PIL import Image

from experiments.negatives import __main__ as negatives
from experiments.negatives import sheets
from experiments.negatives.measure import flops, measure_arm
from experiments.negatives.results import PLAIN, Negatives
from experiments.negatives.settings import STRENGTHS, Arm, Protocol, arms
from experiments.removal import Seen, removal_table
from experiments.results_page import alphas, methods
from experiments.sampling import ManySteps, one_step
from experiments.shapes.world import SHAPES, pair
from training.models.guidance.methods import METHODS, Method
from training.models.loading import load_backbone

PAIRS = [
    pair("a green shape", {"colour": "green"}, "shape", "triangle"),
    pair("a ring", {"shape": "ring"}, "colour", "green"),
]


@pytest.fixture(scope="module")
def model():
    return load_backbone(STUDENT)


def test_an_arm_has_the_counts_of_the_removal_table(model):
    protocol = Protocol(images=3, seeds=(10, 500))
    got = measure_arm(SHAPES, model, Arm(1, Method("nasa", 1.0)), PAIRS, protocol)
    for block, seed in enumerate(protocol.seeds):
        table = removal_table(SHAPES, one_step(model, scale=1.0), PAIRS, count=3, seed=seed)
        for n, row in enumerate(table):
            assert {name: got[name][block][n] / 3 for name in asdict(row)} == pytest.approx(asdict(row))
    plain = measure_arm(SHAPES, model, Arm(1, Method("none")), PAIRS, protocol)
    assert sum(map(sum, plain["absent"])) < sum(map(sum, got["absent"]))


def test_cost_of_a_picture(model):
    cost = {name: flops(model, Method(name, 1.0), PAIRS[0]) for name in ("none", *STRENGTHS)}
    assert cost["cfg"] == 2 * cost["none"] and cost["embeddings"] == cost["none"]
    assert cost["none"] < cost["nasa"] == cost["nag"] == cost["orthogonal"] < cost["cfg"]


def test_each_image_has_its_own_random_scale(model):
    """The scale is within its range, and does not depend on the batch."""
    drawn = ManySteps(model=model, cfg=(2.0, 5.0))._kappa([1, 2, 3])
    noise = torch.stack([torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)])
    assert not torch.allclose(drawn.flatten(), 2 + 3 * noise)  # torch uses only 32 bits of a seed
    assert drawn.shape == (3, 1, 1, 1) and bool(((drawn >= 2) & (drawn < 5)).all()) and drawn.unique().numel() == 3
    assert torch.equal(ManySteps(model=model, cfg=(2.0, 5.0))._kappa([3]), drawn[2:])
    together = ManySteps(model=model, steps=2, cfg=(2.0, 5.0))(["a ring", "left"], [1, 2])
    alone = ManySteps(model=model, steps=2, cfg=float(drawn[1]))(["left"], [2])
    assert torch.allclose(together[1:], alone, atol=1e-4)


@pytest.mark.slow
def test_finished_arms_are_kept_and_another_protocol_is_refused(tmp_path, monkeypatch, capsys):
    first = [Arm(1, Method("none")), Arm(1, Method("cfg", 1.5)), Arm(1, Method("embeddings", 0.5))]
    first += [Arm(1, Method("nasa", 1.0))]
    monkeypatch.setattr(negatives, "arms", lambda: iter(first[:2]))
    monkeypatch.setattr(negatives, "draw_sheets", lambda *_: None)
    few = ("--pairs-per-group=1", "--pair-images=2")
    call = [STUDENT, "--world=shapes", "--json", str(tmp_path / "n.json"), *few, "--images", "1"]
    assert negatives.main(call) == 0
    before = json.loads((tmp_path / "n.json").read_text(encoding="utf-8"))
    assert len(before["pairs"]) == 8 and list(before["arms"]) == ["1 none", "1 cfg:1.5"]
    monkeypatch.setattr(negatives, "arms", lambda: iter(first))
    assert negatives.main(call) == 0
    after = json.loads((tmp_path / "n.json").read_text(encoding="utf-8"))
    assert "4 arms, 2 measured now" in capsys.readouterr().out
    assert after["pairs"] == before["pairs"] and {n: after["arms"][n] for n in before["arms"]} == before["arms"]
    written = (tmp_path / "n.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):  # existing results are not overwritten
        negatives.main([*call[:-1], "2"])
    assert "choose another --json" in capsys.readouterr().err and (tmp_path / "n.json").read_bytes() == written


def synthetic(clean):
    """Results with these numbers of clean images out of 10, by arm and pair, for both blocks; all are kept."""
    found = {
        arm: {"absent": [row, row], "kept": [[10] * 4] * 2, "valid": [row, row], "clean": [row, row]}
        for arm, row in clean.items()
    }
    return Negatives({"protocol": {"images": 10, "seeds": [0, 1]}, "pairs": [{"fixed": True}] * 4, "arms": found})


def test_the_tables_follow_from_the_numbers():
    found = synthetic(
        {PLAIN: [0, 3, 1, 2], "1 nasa:1": [5, 8, 9, 9], "1 nasa:0.5": [9, 8, 2, 1], "1 cfg:3": [1, 0, 0, 0]}
        | {"1 nag:1": [5, 8, 9, 9], "1 embeddings:1": [10, 10, 10, 10], "1 vsf:9": [9, 9, 9, 9]}
    )
    assert found.share(PLAIN, "absent") == pytest.approx(0.15)
    assert found.strengths("nasa") == {0.5: "1 nasa:0.5", 1.0: "1 nasa:1"}  # ascending
    assert found.best("nasa") == "1 nasa:1" and found.strengths("vsf") == {}  # strength 9 is not measured any more
    assert alphas.best_alphas(found) == [0.5, 0.5, 1.0, 1.0]  # the smallest of equally good ones
    assert alphas.held_out_gain(found) == pytest.approx([0.4, 0.0, 0.0, 0.0])
    assert methods.better_method(found, "cfg") == "NASA" and methods.better_method(found, "nag") == "not settled"
    assert methods.better_method(found, "embeddings") == "embedding subtraction"
    assert methods.matched(found, "nasa", "kept", 0.99) == "0.78 (1)"
    assert methods.matched(found, "nasa", "valid", 0.7) == "0.78 (1)"
    assert (
        methods.matched(found, "nasa", "valid", 0.8) == "-"
        and methods.matched(found, "cfg", "valid", 0.1) == "0.15 (plain)"
    )


def test_the_gain_of_alpha_is_measured_on_other_images():
    """The two blocks disagree: the choice of each is worse in the other."""
    found = synthetic({PLAIN: [0] * 4, "1 nasa:0.5": [5] * 4, "1 nasa:1": [5] * 4})
    found.found["arms"]["1 nasa:0.5"]["clean"] = [[9, 2, 2, 2], [1, 8, 8, 8]]
    found.found["arms"]["1 nasa:1"]["clean"] = [[6, 3, 3, 3], [2, 3, 3, 3]]
    assert sum(alphas.held_out_gain(found)) <= 0


def test_levels_that_no_method_reaches_have_no_column(monkeypatch):
    arms = {PLAIN: [8] * 4} | {f"1 {name}:1": [8] * 4 for name in STRENGTHS}
    monkeypatch.setattr(methods, "LEVELS", (("valid", 0.75), ("valid", 0.85)))
    table = methods.matched_table(synthetic(arms))
    assert "kept and valid >= 0.75" in table and "0.85" not in table and "| - |" not in table


def test_a_row_of_the_sheets_begins_with_what_its_negative_names(capsys):
    """Neither an invalid picture nor one without the unwanted is chosen; a pair that is never shown is named."""
    number = len(sheets.TRIED)
    rows = [{"shape": "disc", "colour": "red"}] * number
    rows[4] = rows[7] = {"shape": "triangle", "colour": "red"}
    valid = [n != 4 for n in range(number)]
    world = replace(SHAPES, read=lambda images: Seen(rows=rows, valid=valid))
    plain = lambda prompts, seeds, negative=None: torch.zeros(len(seeds), 3, 8, 8)  # noqa: E731
    assert sheets.first_shown(world, plain, PAIRS) == [(PAIRS[0], sheets.TRIED[7])]
    assert "'a ring' minus 'green' is not in the sheets" in capsys.readouterr().err


def test_a_model_that_shows_none_of_the_pairs_has_one_sheet(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheets, "recommended_alpha", lambda source: None)
    monkeypatch.setattr(sheets, "_generate", lambda *_: lambda prompts, seeds, *_: torch.zeros(len(seeds), 3, 8, 8))
    world = replace(SHAPES, read=lambda images: Seen(rows=[{}] * len(images), valid=[False] * len(images)))
    found = synthetic({PLAIN: [8] * 4} | {f"1 {name}:{several[-1]:g}": [8] * 4 for name, several in STRENGTHS.items()})
    sheets.draw_sheets(world, SimpleNamespace(source=""), found, PAIRS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results-pairs.png"]
    assert "is not in the sheets" in capsys.readouterr().err


def test_titles_stand_above_the_columns(tmp_path):
    rows = [("a row", torch.ones(2, 3, 64, 64))]
    sheets.contact_sheet(rows, tmp_path / "bare.png")
    sheets.contact_sheet(rows, tmp_path / "titled.png", ["plain", "a title that needs two lines"])
    bare, titled = (Image.open(tmp_path / f"{name}.png") for name in ("bare", "titled"))
    above = titled.height - bare.height
    assert above > 2 * sheets.LINE and titled.crop((0, above, *titled.size)).tobytes() == bare.tobytes()
    halves = (titled.crop((left, 0, left + bare.width // 2, above)) for left in (0, bare.width // 2))
    assert all(half.convert("L").getextrema()[0] < 128 for half in halves)


def test_every_arm_has_a_known_method_and_a_unique_name():
    names = [str(arm) for arm in arms()]
    known = {name for name in METHODS if not Method(name).many_steps}
    assert len(set(names)) == len(names) and {name.split()[1].partition(":")[0] for name in names} <= known
    assert set(methods.TITLES) == set(STRENGTHS)
    assert all(str(Arm(int(name[0]), Method.parse(name[2:]))) == name for name in names)
