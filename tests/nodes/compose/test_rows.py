"""Other nodes that change which rows an attention or a call of the model has: regional prompts and tiles."""

from __future__ import annotations

import comfy.ldm.modules.attention as attention
import families.contract
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from composed import (
    POSITIVE,
    UNCONDITIONAL,
    UNWANTED,
    T,
    assert_close_to_exact,
    assert_identical,
    exact_model,
    prompt,
    sampled,
    steer,
    subject,
    subtractions,
)
from divided import coupled, coupled_and_steered, regions, tiled, tiles_of
from reference import Subtraction, relative_error
from unets import SIDE, conditioning, noise

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

CFG = 3.0
SIZE = (2 * SIDE, 2 * SIDE)  # of a latent of four tiles
NOT_LABELS = "snoopi_labels".__ne__


def texts(count: int) -> list[torch.Tensor]:
    return [prompt(20 + i)["context"] for i in range(count - 1)]


def couple(patcher, count: int, **settings):
    return coupled(patcher, texts(count), regions(count), **settings)


def random_mask(*size: int) -> torch.Tensor:
    return torch.rand(1, *size, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize(("count", "rows", "cfg"), [(2, 1, CFG), (2, 2, CFG), (3, 1, CFG), (2, 2, 1.0)])
@pytest.mark.parametrize("is_masked", [False, True])
def test_regional_prompts_inside_the_network(count, rows, cfg, is_masked):
    mask = random_mask(SIDE, SIDE) if is_masked else None
    patcher = subject().patcher
    got = sampled(steer(couple(patcher, count), mask=mask), cfg=cfg, rows=rows)
    exact = coupled_and_steered(exact_model(), texts(count), regions(count), mask)
    expected = sampled(exact, cfg=cfg, rows=rows)
    assert relative_error(sampled(couple(patcher, count), cfg=cfg, rows=rows), expected) > 1e-2
    assert_close_to_exact("attention coupling", relative_error(got, expected))
    other_order = sampled(couple(steer(patcher, mask=mask), count), cfg=cfg, rows=rows)
    assert_identical("attention coupling", "the other order", got, other_order)


def test_regional_prompts_with_a_negative_for_each_image():
    negatives = torch.cat([prompt(seed)["context"] for seed in (UNWANTED, 30)])
    patcher = couple(subject().patcher, 2)
    got = sampled(steer(patcher, {"context": negatives}), cfg=CFG, rows=2)
    each = [sampled(steer(patcher, {"context": one[None]}), cfg=CFG, rows=2) for one in negatives]
    assert_identical("attention coupling", "one negative", got, torch.stack([each[0][0], each[1][1]]))


def test_rows_that_cannot_be_followed_are_refused():
    patcher = couple(subject().patcher, 2, factor=1.1)
    with pytest.raises(ValueError, match="cannot tell which rows of an attention belong to the prompt"):
        sampled(steer(patcher), cfg=CFG)
    sampled(steer(patcher))  # without a negative conditioning, all rows belong to the prompt


def test_regional_prompts_inside_a_transformer_are_refused():
    video = families.case("Wan 2.1 T2V")
    patcher = families.contract.steer(video.patcher, video.condition(3))
    forward = patcher.model.diffusion_model.blocks[0].cross_attn.forward

    def repeated(x, context, **kwargs):
        return forward(torch.cat([x, x]), torch.cat([context, context]), **kwargs)[: x.shape[0]]

    patcher.add_object_patch("diffusion_model.blocks.0.cross_attn.forward", repeated)
    with pytest.raises(ValueError, match="another node repeats the rows of its cross-attention"):
        video.sample(patcher, video.condition(1), video.condition(2))


@pytest.fixture
def compiled(monkeypatch):
    """Compiles a model; fails at a graph break instead of falling back."""
    for target in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(attention, target, attention.attention_pytorch)  # the host's own breaks any graph

    def compile_model(patcher):
        set_torch_compile_wrapper(model=patcher, backend="eager", fullgraph=True)
        return patcher

    torch._dynamo.reset()
    yield compile_model
    torch._dynamo.reset()


@pytest.mark.full
def test_compiled_regional_prompts(compiled):
    mask = random_mask(SIDE, SIDE)
    patcher = compiled(couple(steer(subject().patcher, mask=mask), 2))
    expected = sampled(coupled_and_steered(exact_model(), texts(2), regions(2), mask), cfg=CFG)
    error = relative_error(sampled(patcher, cfg=CFG), expected)
    assert_close_to_exact("attention coupling, torch.compile", error)


@pytest.mark.full
def test_compiled_rows_that_cannot_be_followed_are_refused(compiled):
    with pytest.raises(ValueError, match="cannot tell which rows of an attention belong to the prompt"):
        sampled(compiled(couple(steer(subject().patcher), 2, factor=1.1)), cfg=CFG)


def exact_tiles(rows: int, cfg: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Each tile like a picture of its own, in fp64."""
    x = noise(rows, size=SIZE)
    out = torch.zeros_like(x, dtype=torch.float64)
    guidance = {"negative": prompt(UNCONDITIONAL), "cfg": cfg} if cfg != 1.0 else {}
    for place in tiles_of(SIZE, SIDE):
        crop = (..., *place)
        away = [
            Subtraction(each.context, each.alpha, mask=None if mask is None else mask[crop]) for each in subtractions()
        ]
        out[crop] = subject().reference.x0(x[crop], T, prompt(POSITIVE), away, **guidance)
    return out


@pytest.mark.parametrize(("at_once", "rows", "cfg"), [(1, 1, CFG), (4, 1, CFG), (3, 2, CFG), (4, 2, 1.0)])
@pytest.mark.parametrize("is_masked", [False, True])
def test_tiles(at_once, rows, cfg, is_masked):
    mask = random_mask(*SIZE) if is_masked else None
    patcher = subject().patcher
    got = sampled(tiled(steer(patcher, mask=mask), SIDE, at_once), cfg=cfg, rows=rows, size=SIZE)
    expected = exact_tiles(rows, cfg, mask)
    assert_close_to_exact("tiles", relative_error(got, expected))
    plain = sampled(tiled(patcher, SIDE, at_once), cfg=cfg, rows=rows, size=SIZE)
    assert relative_error(plain, expected) > 1e-2


@pytest.mark.parametrize("at_once", [1, 4])
def test_tiles_whose_text_alone_tells_them_apart(at_once):
    """The node passes on only the conditionings that it knows."""
    patcher = tiled(steer(subject().patcher), SIDE, at_once, passes=NOT_LABELS)
    got = sampled(patcher, cfg=CFG, size=SIZE)
    assert_close_to_exact("tiles", relative_error(got, exact_tiles(1, CFG)))


@pytest.mark.parametrize(
    ("what", "mask", "message"),
    [
        ("the same text twice", None, "cannot tell which rows of this call"),
        ("tiles without labels", random_mask(*SIZE), "nothing says which"),
    ],
    ids=["the same text twice", "a mask"],
)
def test_tiles_that_cannot_be_attributed_are_refused(what, mask, message):
    patcher = tiled(steer(subject().patcher, mask=mask), SIDE, 4, passes=NOT_LABELS)
    negative = conditioning(prompt(POSITIVE)) if what == "the same text twice" else None
    with pytest.raises(ValueError, match=message):
        sampled(patcher, negative=negative, cfg=CFG, size=SIZE)


@pytest.mark.parametrize(("mask", "cfg"), [(random_mask(*SIZE), 1.0), (None, CFG)], ids=["a mask", "cfg"])
def test_tiles_between_the_model_and_the_network_are_refused(mask, cfg):
    def halves(executor, x, *args, **kwargs):
        return torch.cat([executor(half, *args, **kwargs) for half in x.chunk(2, dim=-1)], dim=-1)

    patcher = steer(subject().patcher, mask=mask)
    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "halves", halves)
    with pytest.raises(ValueError, match="gives the network a latent of 16 x 8"):
        sampled(patcher, cfg=cfg, size=SIZE)


def test_a_mask_of_a_latent_that_is_rolled_is_refused():
    """The node leaves everything else of the latent's size in place."""
    patcher = tiled(steer(subject().patcher, mask=random_mask(SIDE, SIDE)), SIDE, 1, shift=2)
    with pytest.raises(ValueError, match="nothing says which part"):
        sampled(patcher, cfg=CFG)
    assert torch.isfinite(sampled(tiled(steer(subject().patcher), SIDE, 1, shift=2), cfg=CFG)).all()


def replaced_inside(patcher):
    """Another node's wrapper puts its own function in place of the one that sees ComfyUI's rows."""
    function = tiled(subject().patcher, SIDE, 4).model_options["model_function_wrapper"]

    def replace(executor, model, conditionings, x, timestep, options):
        return executor(model, conditionings, x, timestep, {**options, "model_function_wrapper": function})

    patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "tiles", replace)
    return patcher


def test_rows_that_another_node_hides_are_not_guessed():
    got = sampled(replaced_inside(steer(subject().patcher)), size=SIZE)
    assert_close_to_exact("tiles", relative_error(got, exact_tiles(1, 1.0)))
    with pytest.raises(ValueError, match="cannot tell which rows of this call"):
        sampled(replaced_inside(steer(subject().patcher)), cfg=CFG, size=SIZE)
    with pytest.raises(ValueError, match="nothing says which"):
        sampled(replaced_inside(steer(subject().patcher, mask=random_mask(*SIZE))), size=SIZE)
