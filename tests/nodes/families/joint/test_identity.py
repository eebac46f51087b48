"""Every class of joint attention: a negative that is the prompt itself takes the prompt's part out, exactly.

See tests/support/families/joint/identity.py. Negatives of other lengths are compared in test_exact.py.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from families.contract import steer
from families.joint import JOINT_CASES
from families.joint.identity import MUTANTS, without_prompt
from families.joint.networks import NETWORKS, all_networks, network
from figures import measured
from reference import relative_error

from snoopi_core.host.families import family_of

pytestmark = pytest.mark.host

ALPHA = 0.5
BAR = 2e-6
EFFECT = 1e-3
CFG = 4.0
GUIDED_BAR = 4e-6
"""Guidance multiplies rounding: the plain networks have up to 1.8e-06."""


@pytest.mark.both_hosts
# The others are compared with the whole formula in the gate.
@pytest.mark.parametrize("name", all_networks(in_the_gate={*NETWORKS} - {*JOINT_CASES} | {"Flux 2"}))
def test_the_prompt_as_negative(name):
    """Alone, and at cfg 4, where the unconditional rows stay as they are."""
    subject = network(name)
    positive, other = subject.condition(1), subject.unconditional()
    before, unguided = (subject.sample(subject.patcher, each, each) for each in (positive, other))
    expected = without_prompt(subject, positive, ALPHA)
    assert relative_error(before, expected) > EFFECT
    steered = steer(subject.patcher, positive, alpha=ALPHA)
    error = relative_error(subject.sample(steered, positive, other), expected)
    measured("joint attention", name, "the prompt as negative", error, BAR)
    error = relative_error(subject.sample(steered, positive, other, cfg=CFG), guided(expected, unguided))
    measured("joint attention", name, "the prompt as negative, cfg 4", error, GUIDED_BAR)


def guided(conditional, unconditional):
    """What two networks' pictures give together: a picture is linear in what a network returns."""
    return unconditional + CFG * (conditional - unconditional)


@pytest.mark.parametrize("name", all_networks(in_the_gate={"OmniGen 2"}))
def test_a_wrong_formula_is_seen(name, monkeypatch):
    """And wrong positions of the negative, where its text has any."""
    subject = network(name)
    positive, other = subject.condition(1), subject.unconditional()
    steered = steer(subject.patcher, positive, alpha=ALPHA)
    got = subject.sample(steered, positive, other, cfg=CFG)
    unguided = subject.sample(subject.patcher, other, other)
    right = without_prompt(subject, positive, ALPHA)
    wrong = {each: guided(without_prompt(subject, positive, ALPHA, mutant=each), unguided) for each in MUTANTS}
    wrong["on the unconditional rows too"] = guided(right, subject.sample(steered, other, other))
    move_positions(family_of(subject.patcher.model), monkeypatch)
    moved = subject.sample(steered, positive, other, cfg=CFG)
    if name in ALL_AT_ONE_PLACE:
        assert torch.equal(moved, got)
    else:
        wrong["positions"] = moved
    assert relative_error(got, guided(right, unguided)) <= GUIDED_BAR
    for each, picture in wrong.items():
        assert relative_error(got, picture) > 100 * GUIDED_BAR, each


ALL_AT_ONE_PLACE = {"Flux", "Flux schnell", "Chroma", "HunyuanVideo", "HunyuanImage 2.1", "Krea 2", "HiDream-I1"} | {
    "SD3", "SD3.5 medium", "AuraFlow", "CogVideoX", "JoyImage", "Mochi",  # no positions at all
}  # fmt: skip
"""Networks whose text has no positions of its own."""
if not NETWORKS["Chroma Radiance"].arguments.get("use_sequential_txt_ids"):  # older hosts
    ALL_AT_ONE_PLACE.add("Chroma Radiance")


def move_positions(family, monkeypatch):
    """Gives each token of the negative the position of the one before it."""
    prepare = type(family).context

    def rolled(value, dim):
        if isinstance(value, tuple | list):
            return type(value)(rolled(each, dim) for each in value)
        return None if value is None else value.roll(1, dim)

    def context(self, model, *args):
        prepared, declared = prepare(self, model, *args), self.layers(model)[0].declared
        dim = declared.positions[1] if declared.positions else 0
        return dataclasses.replace(prepared, positions=rolled(prepared.positions, dim))

    monkeypatch.setattr(type(family), "context", context)
