"""Random networks, prompts, areas, masks, ranges, guidance and dtypes, each against the formula in fp64."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest
import torch
from composed import TOLERANCE, steer
from effort import effort
from figures import measured
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from reference import Condition, Subtraction, relative_error
from regions import Part, blended, host_conditioning, with_opposites
from unets import Case, Size, case_of, host_sample, noise, random_unet

from snoopi_core.host.one_step import sigma_at

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

SIZES = [(8, 8), (8, 8), (8, 16), (16, 8)]
DTYPES = [torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16]
FACTOR = 6  # times the plain model's error; the factor allows for different rounding in the two runs
EXAMPLES = effort(gate=16, full=120)
SHAPES = effort(gate=4, full=15)  # networks to choose from; creating one takes longer than sampling with it


@functools.cache
def network(number: int, dtype: torch.dtype) -> Case:
    """A UNet of one or two levels, with random widths, depths, heads, text width and prediction type.

    The reference uses the weights before rounding to `dtype`.
    """
    draw = torch.Generator().manual_seed(number)

    def choose(*values):
        return values[int(torch.randint(len(values), (), generator=draw))]

    levels = choose(1, 2, 2)
    has_attention = [choose(True, True, False) for _ in range(levels - 1)] + [True]
    channels = [32] + [choose(32, 64) for _ in range(levels - 1)]
    shape = {
        "block_out_channels": channels,
        "layers_per_block": choose(1, 2),
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in has_attention],
        "up_block_types": ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(has_attention)],
        "attention_head_dim": choose(2, 4, 8),  # diffusers' name for the number of heads
        "transformer_layers_per_block": choose(1, 2),
        "use_linear_projection": choose(True, False),
        "cross_attention_dim": choose(24, 48, 80),
    }
    case = case_of(random_unet(shape, seed=number), prediction_type=choose("epsilon", "v_prediction"))
    unet = case.patcher.model.diffusion_model.to(dtype)
    unet.dtype = dtype
    return case


@pytest.fixture(scope="module", autouse=True)
def forget_networks():
    yield
    network.cache_clear()


@dataclass(frozen=True)
class Workflow:
    subject: Case
    positive: list[Part]
    negative: list[Part]
    unwanted: list[tuple[Condition, float, torch.Tensor | None]]
    cfg: float
    rows: int
    size: Size
    t: int


@st.composite
def workflows(draw) -> Workflow:
    subject = network(draw(st.integers(0, SHAPES - 1)), draw(st.sampled_from(DTYPES)))
    size, rows = draw(st.sampled_from(SIZES)), draw(st.integers(1, 3))
    seeds = st.integers(0, 10**6)
    tokens = st.sampled_from([1, 5, 20, 77, 77, 77, 154])

    def prompt() -> dict:
        return subject.condition(draw(seeds), draw(tokens), size=size)

    def random_mask() -> torch.Tensor:
        """(1 or rows, h, w): random values, random values with one half black, or random black and white."""
        noisy = torch.rand(
            draw(st.sampled_from([1, rows])), *size, generator=torch.Generator().manual_seed(draw(seeds))
        )
        return draw(st.sampled_from([noisy, noisy * (noisy[:1, :1] > 0.5), (noisy > 0.5).float()]))

    def part(may_be_anywhere: bool) -> Part:
        changes = {}
        if may_be_anywhere and draw(st.booleans()):
            height, width = (draw(st.sampled_from([side // 2, side])) for side in size)
            y, x = (draw(st.integers(0, whole - own)) for whole, own in zip(size, (height, width), strict=True))
            changes["area"] = max(height, 8), max(width, 8), min(y, size[0] - 8), min(x, size[1] - 8)
        if may_be_anywhere and draw(st.booleans()):
            changes["mask"] = random_mask()[0]
            changes["mask_strength"] = draw(st.sampled_from([1.0, 0.6]))
        if may_be_anywhere and draw(st.booleans()):
            start, end = draw(st.sampled_from([(0.0, 0.6), (0.4, 1.0), (0.0, 1.0)]))
            changes |= {"start": start, "end": end}
        if draw(st.booleans()):
            changes["strength"] = draw(st.sampled_from([0.5, 1.3]))
        return Part(prompt(), **changes)

    def unwanted() -> tuple[Condition, float, torch.Tensor | None]:
        return prompt(), draw(st.sampled_from([0.1, 0.5, 1.0])), random_mask() if draw(st.booleans()) else None

    return Workflow(
        subject=subject,
        positive=[part(False)] + [part(True) for _ in range(draw(st.integers(0, 2)))],
        negative=[Part(prompt())],
        unwanted=[unwanted() for _ in range(draw(st.sampled_from([1, 1, 2])))],
        cfg=draw(st.sampled_from([1.0, 1.0, 2.0, 4.0])),
        rows=rows,
        size=size,
        t=draw(st.sampled_from([999, 999, 700, 249])),
    )


def host_result(workflow: Workflow, patcher) -> torch.Tensor:
    sigma = sigma_at(patcher.get_model_object("model_sampling"), workflow.t)
    return host_sample(
        patcher,
        host_conditioning(workflow.positive),
        host_conditioning(workflow.negative),
        cfg=workflow.cfg,
        rows=workflow.rows,
        size=workflow.size,
        sigmas=torch.tensor([sigma, 0.0]),
    )


def exact_result(workflow: Workflow, subtractions: list[Subtraction]) -> torch.Tensor:
    """At timesteps before the first, the host starts from sigma times noise, which is sigma_t times noise here."""
    reference, t = workflow.subject.reference, workflow.t
    x = noise(workflow.rows, size=workflow.size).double()
    if t < 999:
        x *= reference.alpha_sigma(t)[1]
    guided = blended(reference, x, t, with_opposites(workflow.positive, workflow.negative), subtractions)
    if workflow.cfg == 1.0:
        return guided
    unguided = blended(reference, x, t, with_opposites(workflow.negative, workflow.positive))
    return unguided + workflow.cfg * (guided - unguided)


@pytest.mark.scaled
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(workflows())
def test_the_host_and_the_formula_agree(workflow):
    patcher, away = workflow.subject.patcher, []
    for condition, alpha, mask in workflow.unwanted:
        patcher = steer(patcher, condition, alpha=alpha, mask=mask)
        away.append(Subtraction(condition["context"], alpha, mask=mask))
    exact = exact_result(workflow, away)
    error = relative_error(host_result(workflow, patcher), exact)
    bar = TOLERANCE
    if error > bar:  # half precision, or a network that magnifies rounding
        exact_plain = exact_result(workflow, [])
        plain = relative_error(host_result(workflow, workflow.subject.patcher), exact_plain)
        bar = max(bar, FACTOR * plain)
        # If rounding hides the effect of NASA, the example would pass without NASA.
        assume(relative_error(exact_plain, exact) > bar)
        note(f"plain model {plain:.1e}, steered {error:.1e}")
    dtype = str(patcher.model.get_dtype()).removeprefix("torch.")
    measured("composition", f"Random workflows, {dtype}", "relative error", error, bar)
