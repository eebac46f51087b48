"""guidance.decoupled: Decoupled DMD's loss against a derivation in fp64, its noise, its cost, and nothing when off."""

import copy
import dataclasses

import pytest
import torch
from derived import Reference, cut, gradient
from distilled import MODELS, PROMPTS, draws_for, make_distillation, make_recipe, randomise_lora, relative
from tiny import tiny_backbone

from training.config import RecipeError, load_recipe
from training.trainer.distributed.state_dicts import trained_state

TOLERANCE = 1e-6


def decoupled(**changes):
    return make_recipe(guidance={"decoupled": True, **changes.pop("guidance", {})}, **changes)


@pytest.mark.parametrize(
    ("model", "weight", "lora_kappa"),
    [
        ("SD1.5", "sigma_squared", None),
        ("SD1.5, v", "dmd", None),
        ("PixArt", "uniform", 1.0),
        pytest.param("SD2.1", "sigma_squared", 1.0, marks=pytest.mark.full),
        pytest.param("SDXL", "dmd", 2.5, marks=pytest.mark.full),
    ],
)
def test_loss_and_gradient_equal_the_derivation(model, weight, lora_kappa):
    backbone = MODELS[model]()
    recipe = decoupled(guidance={"lora_kappa": lora_kappa}, loop={"vsd_weight": weight})
    plain = copy.deepcopy(backbone.network).double()
    d = make_distillation(backbone, recipe, torch.float64)
    randomise_lora(d.teachers)
    reference = Reference(
        plain, trained_state(d.teachers.network), 8 / 4, backbone.alphas_cumprod(), backbone.prediction_type
    )
    twin = copy.deepcopy(d.student)
    text = backbone.encode(PROMPTS).to(torch.device("cpu"), torch.float64)
    rows, null = cut(text), cut(d.null)[0]
    draws = draws_for(recipe, 1, torch.float64)
    assert not torch.equal(draws.guidance.t, draws.t) and not torch.equal(draws.guidance.eps, draws.eps)

    x0 = d.student_x0(draws.z, text)
    loss, gap = d.student_loss(x0, text, draws)
    loss.backward()
    want_x0 = reference.student(twin, draws.z, rows, 999)
    kappas = draws.kappa, draws.kappa if lora_kappa is None else lora_kappa
    with torch.no_grad():
        want_gap = reference.decoupled_gap(want_x0.detach(), rows, null, draws, kappas, weight)
    want_x0.backward(want_gap / want_gap.numel())
    assert relative(gap, want_gap) < TOLERANCE
    assert abs(loss.item() / (0.5 * (want_gap**2).mean().item()) - 1) < TOLERANCE
    assert relative(gradient(d.student), gradient(twin)) < TOLERANCE


def gaps(recipe, draws):
    """The gap of `draws`, and the rows that each teacher was called with."""
    backbone = tiny_backbone()
    d = make_distillation(backbone, recipe, torch.float64)
    randomise_lora(d.teachers)
    text = backbone.encode(PROMPTS).to(torch.device("cpu"), torch.float64)
    rows = []
    d.teachers.network.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    with torch.no_grad():
        return d.student_gap(draws.z, text, draws), rows


@pytest.mark.parametrize("weight", ["sigma_squared", "uniform"])
def test_at_one_and_the_same_noise_it_is_the_usual_loss(weight):
    recipe = decoupled(loop={"vsd_weight": weight})
    draws = draws_for(recipe, 0, torch.float64)
    same = dataclasses.replace(draws, guidance=dataclasses.replace(draws.guidance, t=draws.t, eps=draws.eps))
    usual = dataclasses.replace(draws, guidance=None)
    (ours, rows), (theirs, rows_before) = (gaps(recipe, one) for one in (same, usual))
    assert relative(ours, theirs) < 1e-12
    other, _ = gaps(recipe, draws)
    assert relative(other, theirs) > 0.01
    assert (sum(rows), sum(rows_before)) == (6 * len(PROMPTS), 4 * len(PROMPTS))


def test_with_the_papers_lora_teacher_it_costs_no_row_more():
    recipe = decoupled(guidance={"lora_kappa": 1.0})
    assert sum(gaps(recipe, draws_for(recipe, 0, torch.float64))[1]) == 4 * len(PROMPTS)


def test_off_by_default_and_then_every_other_number_is_as_before():
    plain, other = make_recipe(), decoupled()
    before, drawn = draws_for(plain, 3), draws_for(other, 3)
    assert before.guidance is None and not plain.guidance.decoupled
    for name in ("kappa", "z", "t", "eps"):
        assert torch.equal(getattr(before, name), getattr(drawn, name))
    assert torch.equal(before.lora[0].eps, drawn.lora[0].eps) and torch.equal(before.lora[0].t, drawn.lora[0].t)
    assert plain.sha256() == make_recipe(guidance={"decoupled": False}).sha256() != other.sha256()


def test_its_timesteps_have_less_noise_than_the_students_step():
    for timesteps, step in (((999, 749, 499, 249), 0), ((999, 749, 499, 249), 2), ((999, 749, 499, 249), 3)):
        recipe = decoupled(student={"timesteps": timesteps}, loop={"batch_size": 4000})
        draws = draws_for(recipe, step=step)
        t, most = draws.guidance.t, min(980, timesteps[step] - 1)
        assert (t.min() >= 20) and (t.max() <= most) and t.min() < 25 and t.max() > most - 10
        assert abs(t.float().mean() - (20 + most) / 2) < 0.03 * most, "uniform"
        assert draws.t.max() > 970, "the rest of the loss keeps the whole range"


def test_rows_of_processes_and_micro_batches():
    draws = draws_for(decoupled())
    part = draws.rows(slice(1, 3), torch.device("cpu"))
    assert torch.equal(part.guidance.t, draws.guidance.t[1:3])
    assert torch.equal(part.guidance.eps, draws.guidance.eps[1:3])


def test_a_step_below_the_least_timestep_is_refused():
    with pytest.raises(RecipeError, match=r"from loop.t_min 20 up to the student's, but the student has a step at 9"):
        load_recipe("shapes", ["guidance.decoupled=true", "student.timesteps=999,9"])
