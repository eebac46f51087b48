"""The students of joint attention: what they are trained on, training and resuming, and the formulas compared."""

from __future__ import annotations

import dataclasses
import json
from types import MethodType

import pytest
import torch
from families.base import conditioning
from families.contract import subtract
from families.joint import JOINT_CASES
from families.joint.formula import attend, flat, weights
from reference import relative_error

from experiments.avatars.world import AVATARS
from experiments.joint_students import evaluate
from experiments.joint_students.formulas import steered
from experiments.joint_students.networks import NAMES, new_model
from experiments.joint_students.pairs import draw_pairs, load_pairs, load_turn, measure_turn
from experiments.joint_students.settings import SETTINGS
from experiments.joint_students.train import Recipe, train
from experiments.joint_students.turn import digest, informative, lowest_frequencies, to_lowest, turned
from experiments.joint_students.world import LATENT, SUBJECTS, TEXT, TOKENS, load, sampler
from snoopi_core.host.families import family_of

BAR = 2e-6
STRENGTHS = {"m_P": 0.5, "m = 1": 0.5, "whole": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pack_root):
    """Four pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pack_root)
        path = tmp_path_factory.mktemp("students")
        measure_turn(path, "student", draws=4)
        draw_pairs(path, "student", 4)
        return path


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch, pack_root):
    monkeypatch.chdir(pack_root)


def change(self, z, part, q, p, n, i, subtraction):
    """The compared formulas, written out."""
    if subtraction.method == "m = 1":
        return -subtraction.alpha * flat(attend(q, n))
    if subtraction.method == "whole":
        return -subtraction.alpha * flat(attend(q, n, i))
    assert subtraction.method == "m_P"
    e_p, e_i = (each.sum(-1, keepdim=True) for each in weights(q, [p, i]))
    return -subtraction.alpha * flat(e_p / (e_p + e_i) * attend(q, n))


@pytest.mark.host
@pytest.mark.parametrize("formula", STRENGTHS)
@pytest.mark.parametrize("name", ["Flux", "Lumina 2"])
def test_the_compared_formulas_are_exact(name, formula, monkeypatch):
    """In both classes, with a negative longer than the prompt; two pictures."""
    subject = JOINT_CASES[name]()
    monkeypatch.setattr(subject.reference, "change", MethodType(change, subject.reference))
    positive, negative = subject.condition(1), subject.condition(3, subject.more)
    patcher = steered(subject.patcher, conditioning(positive), conditioning(negative), formula, STRENGTHS[formula])
    got = subject.sample(patcher, positive, positive, rows=2)
    expected = subject.expected(positive, [subtract(negative, STRENGTHS[formula], method=formula)], rows=2)
    plain = subject.sample(subject.patcher, positive, positive, rows=2)
    assert relative_error(plain, got) > 1000 * BAR
    print(f"{name}, {formula}: {relative_error(got, expected):.1e}")
    assert relative_error(got, expected) <= BAR


def test_pairs_are_what_the_source_makes(folder):
    """The noise and the x0 of a pair belong together, no caption is cut off, and only missing files are drawn."""
    pairs = load_pairs(folder, "student")
    assert pairs.noise.shape == pairs.x0.shape == (4, *LATENT) and pairs.texts.shape[1:] == (TOKENS, TEXT)
    [file] = folder.glob("pairs-*.pt")
    made, captions = file.stat().st_mtime_ns, torch.load(file, weights_only=True)["captions"]
    source = sampler(load("student"), "student")
    seeds = list(range(1_000_000, 1_000_004))
    assert torch.equal(pairs.x0, source.latents(captions, seeds).half().float())
    noise = turned(pairs.noise, load_turn(folder, "student").T)
    assert relative_error(noise, source.noise(seeds).half().float()) < 1e-5
    draw_pairs(folder, "student", 4)
    assert file.stat().st_mtime_ns == made


@pytest.mark.full
def test_turned_noise_has_what_decides_a_picture_in_its_lowest_frequencies():
    """The rotation keeps white noise white, and moves the directions that matter most to the lowest frequencies."""
    found = informative("student", draws=800)
    rotation, waves = to_lowest(found), lowest_frequencies(found.shape[1])
    assert (rotation @ rotation.T - torch.eye(len(rotation))).abs().max() < 1e-5
    assert (rotation @ found.float() - waves.float()).abs().max() < 1e-5
    source = sampler(load("student"), "student")
    seeds = list(range(50_000, 50_400))
    noise = turned(source.noise(seeds), rotation)
    latents = source.latents([SUBJECTS[0]] * len(seeds), seeds).flatten(1)
    random = torch.linalg.qr(torch.randn(waves.shape, generator=torch.Generator().manual_seed(0))).Q
    lowest, others = (_explained(each, latents) for each in (noise.mean((2, 3)), noise.flatten(1) @ random))
    print(f"explained by the channels' means {lowest:.2f}, by as many other numbers {others:.2f}")
    assert lowest > others + 0.1


def _explained(features, latents):
    """What a linear map of the features, from the first 300, explains of the variance of the other latents."""
    latents = latents - latents[:300].mean(0)
    error = latents[300:] - features[300:] @ torch.linalg.lstsq(features[:300], latents[:300]).solution
    return (1 - error.square().sum() / latents[300:].square().sum()).item()


@pytest.mark.parametrize("network", [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.full)])
def test_a_student_is_trained_and_measured(network, folder, tmp_path, monkeypatch, capsys):
    """At the smallest size: training continues where it stopped, and every setting acts through the host."""
    pairs, out = load_pairs(folder, "student"), folder
    rotation = digest(load_turn(folder, "student"))
    small = {"network": network, "batch": 2, "width": 32, "first": 0.5, "rotation": rotation}
    for iterations in (1, 2):
        assert train(out, pairs, Recipe(**small, iterations=iterations))
    with pytest.raises(ValueError, match=r"width=32.*width=64"):
        train(out, pairs, Recipe(**small | {"width": 64}))
    rows = [json.loads(line) for line in (out / f"{network}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1] and all(row["loss"] > 0 for row in rows)
    model = new_model(network, channels=LATENT[0], text=TEXT, width=32)
    assert family_of(model) is not None
    moved = torch.load(out / f"{network}.pt", weights_only=True)["networks"]["network"]
    same = [name for name, weight in model.diffusion_model.state_dict().items() if torch.equal(weight, moved[name])]
    # The result begins at zero, so at first only the last layer learns, and then all that leads to it.
    assert len(same) < len(moved) / 2

    few = {method: several[::15] for method, several in SETTINGS.items() if method in ("m_P", "NAG", "VSF", "CFG")}
    monkeypatch.setattr(evaluate, "SETTINGS", few)
    call = [network, "--out", str(out), "--data", str(tmp_path), "--images=1", "--tuning-images=1"]
    call += ["--page", str(tmp_path / "PAGE.md")]
    monkeypatch.setattr(evaluate, "AVATARS", _with_one_pair())
    assert evaluate.main(call) == 0
    path = tmp_path / f"joint-{network}-1.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    assert set(found["tuning"]) == {"none", *(str(each) for several in few.values() for each in several)}
    assert "| m_P |" in (tmp_path / "PAGE.md").read_text(encoding="utf-8") and path.with_suffix(".png").is_file()
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([*call, "--images=2"])
    assert "choose another --json" in capsys.readouterr().err
    monkeypatch.setattr(evaluate, "load_turn", lambda *_: torch.eye(1024))
    with pytest.raises(SystemExit, match="another rotation"):
        evaluate.main(call)


def _with_one_pair():
    prompts = dict([*AVATARS.open_prompts.items()][:1])
    return dataclasses.replace(AVATARS, open_prompts=prompts, left_open=lambda _: {}, fixed=AVATARS.fixed[:1])
