"""Guiders and guidance with extra passes: only the guider's positive conditioning is steered.

Expected values are each node's own formula on predictions in fp64. (The host numbers the conditionings of every pass
from 0, so a pass without the positive also has a number 0, and DualCFG's number 0 is its negative.)
"""

from __future__ import annotations

import pytest
import torch
from comfyui_version import __version__ as HOST_VERSION
from composed import (
    GUIDED,
    POSITIVE,
    UNCONDITIONAL,
    T,
    assert_close_to_exact,
    exact_model,
    guided,
    prompt,
    sampled,
    steer,
    subject,
    subtractions,
)
from host_nodes import has_node, run_node
from reference import relative_error
from unets import case, conditioning, noise

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

MIDDLE = 6  # seed of a third prompt
CFG, CFG_2 = 3.0, 1.5


def x0(seed: int, *, steered: bool = False) -> torch.Tensor:
    """The exact prediction for one prompt."""
    return subject().reference.x0(noise(), T, prompt(seed), subtractions() if steered else ())


def text(seed: int) -> list:
    return conditioning(prompt(seed))


def check(name: str, got: torch.Tensor, expected: torch.Tensor, if_all_were_steered: torch.Tensor) -> None:
    assert relative_error(if_all_were_steered, expected) > 1e-2, (
        "this test would not detect steering of the other passes"
    )
    assert_close_to_exact(name, relative_error(got, expected), GUIDED)


def test_basic_guider():
    guider = run_node("nodes_custom_sampler.BasicGuider", model=steer(subject().patcher), conditioning=text(POSITIVE))
    assert_close_to_exact("BasicGuider", relative_error(guided(guider), x0(POSITIVE, steered=True)))


def test_cfg_guider():
    def formula(steered: bool) -> torch.Tensor:
        positive, negative = x0(POSITIVE, steered=True), x0(UNCONDITIONAL, steered=steered)
        return negative + CFG * (positive - negative)

    guider = run_node(
        "nodes_custom_sampler.CFGGuider",
        model=steer(subject().patcher),
        positive=text(POSITIVE),
        negative=text(UNCONDITIONAL),
        cfg=CFG,
    )
    check("CFGGuider", guided(guider), formula(False), formula(True))


def test_self_attention_guidance():
    """It adds a term from two unconditional passes, so NASA changes only CFG's part."""
    settings = {"scale": 1.0, "blur_sigma": 2.0}

    def node(patcher):
        return run_node("nodes_sag.SelfAttentionGuidance", model=patcher, **settings)

    exact = sampled(node(exact_model()), cfg=CFG)
    expected = exact + CFG * (x0(POSITIVE, steered=True) - x0(POSITIVE))
    without = sampled(subject().patcher, cfg=CFG)
    assert relative_error(sampled(node(subject().patcher), cfg=CFG), without) > 1e-2, "the node changes nothing here"
    for patcher in (steer(node(subject().patcher)), node(steer(subject().patcher))):
        assert_close_to_exact("SelfAttentionGuidance", relative_error(sampled(patcher, cfg=CFG), expected))


def perpendicular(steered: bool, scale: float) -> torch.Tensor:
    """Perp-Neg: the part of the negative direction that is perpendicular to the positive one is subtracted."""
    positive = x0(POSITIVE, steered=True)
    negative, empty = (x0(seed, steered=steered) for seed in (UNCONDITIONAL, MIDDLE))
    along, away = positive - empty, negative - empty
    away = away - (away * along).sum() / along.norm() ** 2 * along
    return empty + CFG * (along - scale * away)


def test_perp_neg_patch():
    def node(patcher):
        return run_node("nodes_perpneg.PerpNeg", model=patcher, empty_conditioning=text(MIDDLE), neg_scale=0.8)

    for patcher in (steer(node(subject().patcher)), node(steer(subject().patcher))):
        got = sampled(patcher, cfg=CFG)
        check("PerpNeg", got, perpendicular(False, 0.8), perpendicular(True, 0.8))


def test_perp_neg_guider():
    guider = run_node(
        "nodes_perpneg.PerpNegGuider",
        model=steer(subject().patcher),
        positive=text(POSITIVE),
        negative=text(UNCONDITIONAL),
        empty_conditioning=text(MIDDLE),
        cfg=CFG,
        neg_scale=0.8,
    )
    check("PerpNegGuider", guided(guider), perpendicular(False, 0.8), perpendicular(True, 0.8))


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_dual_cfg_guider(style):
    def formula(steered: bool) -> torch.Tensor:
        positive = x0(POSITIVE, steered=True)
        middle, negative = (x0(seed, steered=steered) for seed in (MIDDLE, UNCONDITIONAL))
        if style == "nested":
            return negative + CFG_2 * (middle + CFG * (positive - middle) - negative)
        return negative + CFG_2 * (middle - negative) + CFG * (positive - middle)

    guider = run_node(
        "nodes_custom_sampler.DualCFGGuider",
        model=steer(subject().patcher),
        cond1=text(POSITIVE),
        cond2=text(MIDDLE),
        negative=text(UNCONDITIONAL),
        cfg_conds=CFG,
        cfg_cond2_negative=CFG_2,
        style=style,
    )
    check(f"DualCFGGuider, {style}", guided(guider), formula(False), formula(True))


@pytest.mark.parametrize("also", ["neither", "both"])
def test_dual_model_guider(also):
    """The negative runs on another model and is never steered, even if that model has NASA Apply."""
    path = "nodes_custom_sampler.DualModelGuider"
    if not has_node(path):
        version = tuple(map(int, HOST_VERSION.split(".")))
        assert version < (0, 24), f"ComfyUI {HOST_VERSION} has lost {path}"
        pytest.skip("ComfyUI before 0.24 does not have the node")
    other = case("sd15", seed=1)
    guider = run_node(
        path,
        model=steer(subject().patcher),
        model_negative=steer(other.patcher) if also == "both" else other.patcher,
        positive=text(POSITIVE),
        negative=text(UNCONDITIONAL),
        cfg=CFG,
    )

    def formula(steered: bool) -> torch.Tensor:
        away = subtractions() if steered else ()
        positive, negative = x0(POSITIVE, steered=True), other.reference.x0(noise(), T, prompt(UNCONDITIONAL), away)
        return negative + CFG * (positive - negative)

    check("DualModelGuider", guided(guider), formula(False), formula(True))
