"""One PG-SB iteration against a line-by-line derivation in fp64 that shares no code with it."""

import copy

import pytest
import torch
from derived import Reference, cut, gradient
from distilled import MODELS, PROMPTS, draws_for, make_distillation, make_recipe, randomise_lora, relative
from tiny import tiny_backbone

from training.trainer.distributed.state_dicts import trained_state

TOLERANCE = 1e-6


@pytest.mark.parametrize("model", MODELS)
def test_losses_and_gradients_equal_the_derivation(model):
    backbone = MODELS[model]()
    recipe = make_recipe(lora={"condition_dropout": 0.5})
    plain = copy.deepcopy(backbone.network).double()
    d = make_distillation(backbone, recipe, torch.float64)
    randomise_lora(d.teachers)
    reference = Reference(
        plain, trained_state(d.teachers.network), 8 / 4, backbone.alphas_cumprod(), backbone.prediction_type
    )
    twin = copy.deepcopy(d.student)
    text = backbone.encode(PROMPTS).to(torch.device("cpu"), torch.float64)
    rows, null = cut(text), cut(d.null)[0]
    candidates = (draws_for(recipe, iteration, torch.float64) for iteration in range(20))
    draws = next(drawn for drawn in candidates if 0 < drawn.lora[0].drop.sum() < len(PROMPTS))

    x0 = d.student_x0(draws.z, text)
    loss, gap = d.student_loss(x0, text, draws)
    loss.backward()
    want_x0 = reference.student(twin, draws.z, rows, 999)
    with torch.no_grad():
        want_gap = reference.gap(want_x0.detach(), rows, null, draws)
    # L_VSD's gradient in x0 is g / numel: backpropagate it through the student directly, without the loss.
    want_x0.backward(want_gap / want_gap.numel())
    assert relative(x0, want_x0) < TOLERANCE
    assert relative(gap, want_gap) < TOLERANCE
    assert abs(loss.item() / (0.5 * (want_gap**2).mean().item()) - 1) < TOLERANCE
    assert relative(gradient(d.student), gradient(twin)) < TOLERANCE

    d.lora_optimizer.zero_grad()
    loss = d.lora_teacher_loss(x0.detach(), text, draws.lora[0])
    loss.backward()
    want_loss = reference.lora_loss(want_x0.detach(), rows, null, draws.lora[0])
    want_loss.backward()
    assert abs(loss.item() / want_loss.item() - 1) < TOLERANCE
    named = {n.replace(".default", ""): p.grad for n, p in d.teachers.network.named_parameters() if p.requires_grad}
    assert named.keys() == reference.lora.keys()
    got_lora = torch.cat([named[name].flatten() for name in named])
    want_lora = torch.cat([reference.lora[name].grad.flatten() for name in named])
    assert relative(got_lora, want_lora) < TOLERANCE


def test_twenty_iterations_train_only_student_and_lora():
    backbone, recipe = tiny_backbone(), make_recipe()
    before = {name: weight.clone() for name, weight in backbone.network.state_dict().items()}
    d = make_distillation(backbone, recipe)
    student_before = {name: weight.clone() for name, weight in d.student.state_dict().items()}
    lora_before = {name: weight.clone() for name, weight in trained_state(d.teachers.network).items()}
    text = backbone.encode(PROMPTS)
    for iteration in range(20):
        figures = d.run(PROMPTS, text, draws_for(recipe, iteration)).metrics
        assert all(torch.isfinite(torch.tensor(value)) for value in figures.values()), figures
    state = d.teachers.network.state_dict()
    after = {name.replace(".base_layer.", "."): weight for name, weight in state.items() if ".lora_" not in name}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before), "the frozen teacher changed"
    assert all(not torch.equal(w, lora_before[n]) for n, w in trained_state(d.teachers.network).items()), (
        "an adapter did not change"
    )
    assert all(not torch.equal(w, student_before[n]) for n, w in d.student.state_dict().items()), (
        "part of the student did not change"
    )


def test_frozen_teacher_is_the_loaded_teacher_bit_for_bit():
    backbone, recipe = tiny_backbone(), make_recipe()
    plain = copy.deepcopy(backbone.network)
    d = make_distillation(backbone, recipe)
    randomise_lora(d.teachers)
    x, t, states = torch.randn(3, 4, 8, 8), torch.tensor([20, 500, 980]), backbone.encode(PROMPTS).states
    with torch.no_grad():
        with d.teachers.frozen() as teacher:
            assert torch.equal(teacher(x, t, states).sample, plain(x, t, states).sample)
        assert not torch.equal(d.teachers.network(x, t, states).sample, plain(x, t, states).sample)
    assert all(parameter.requires_grad for parameter in d.teachers.lora_parameters())
    assert d.teachers.lora_parameters(), "switching the adapters off and on lost their gradients"


def test_kappa_is_uniform_and_shared():
    recipe = make_recipe(guidance={"kappa_min": 0.5, "kappa_max": 4.0})
    kappas = torch.tensor([draws_for(recipe, i).kappa[0] for i in range(2000)])
    assert kappas.min() >= 0.5 and kappas.max() <= 4.0
    # Kolmogorov-Smirnov distance to U(0.5, 4); 0.0364 is the 1 % point for 2,000 draws.
    steps = torch.arange(1, 2001) / 2000
    assert ((kappas.sort().values - 0.5) / 3.5 - steps).abs().max() < 0.0364
    fixed = make_recipe(guidance={"kappa_min": 4.5, "kappa_max": 4.5})
    assert {kappa for i in range(5) for kappa in draws_for(fixed, i).kappa.tolist()} == {4.5}


@pytest.mark.parametrize(
    ("fixed", "frozen", "lora"), [("neither", 0, 0), ("teacher", 1, 0), ("lora", 0, 1), ("both", 1, 1)]
)
def test_a_fixed_kappa_affects_only_its_teacher(fixed, frozen, lora, monkeypatch):
    """Table 2's four cells."""
    names = {"teacher": ["teacher_kappa"], "lora": ["lora_kappa"], "both": ["teacher_kappa", "lora_kappa"]}
    recipe = make_recipe(guidance=dict.fromkeys(names.get(fixed, []), 7.5))
    backbone = tiny_backbone()
    d = make_distillation(backbone, recipe)
    seen = []
    monkeypatch.setattr("training.distill.teacher_scores.guide", lambda null, text, kappa: seen.append(kappa) or null)
    text, draws = backbone.encode(PROMPTS), draws_for(recipe)
    d.student_loss(d.student_x0(draws.z, text), text, draws)
    drawn = draws.kappa[0].item()
    want = [7.5 if frozen else drawn, 7.5 if lora else drawn]
    assert [torch.as_tensor(kappa).flatten()[0].item() for kappa in seen] == want
    monkeypatch.undo()
    shown = d.run(PROMPTS, text, draws).metrics["kappa"]
    assert shown == pytest.approx(7.5 if frozen and lora else drawn)


def test_x0_is_noised_at_its_own_timestep():
    recipe = make_recipe(student={"alpha_T_squared": 0.25})
    backbone = tiny_backbone()
    d = make_distillation(backbone, recipe)
    text, draws = backbone.encode(PROMPTS), draws_for(recipe)
    eps = d.student(draws.z, 999, text.states).sample
    assert relative(d.student_x0(draws.z, text), (draws.z - 0.75**0.5 * eps) / 0.5) < TOLERANCE


def test_timesteps_cover_their_ranges():
    recipe = make_recipe(loop={"batch_size": 500})
    t = torch.cat([draws_for(recipe, i).t for i in range(40)])
    lora_t = torch.cat([draws_for(recipe, i).lora[0].t for i in range(40)])
    assert (t.min(), t.max()) == (20, 980)
    assert (lora_t.min(), lora_t.max()) == (0, 999)
    dropped = torch.cat([draws_for(recipe, i).lora[0].drop for i in range(40)]).float().mean()
    assert abs(dropped - 0.1) < 0.01


def test_each_teacher_has_timesteps_of_its_own():
    """The loss's and the LoRA teacher's; with the defaults, and whatever the other's are, a draw is as before."""
    given = {"loop": {"batch_size": 4000, "t_min": 500, "t_shift": 3.0}, "lora": {"t_min": 400, "t_max": 990}}
    recipe, plain = make_recipe(**given), make_recipe(loop={"batch_size": 4000})
    drawn, before = draws_for(recipe), draws_for(plain)
    assert drawn.t.min() >= 500 and drawn.t.max() <= 980 and drawn.lora[0].t.min() >= 400
    assert drawn.lora[0].t.max() <= 990
    # s u / (1 + (s - 1) u): half of the draws are above 3/4 of the range, a quarter above 9/10
    for share, above in ((0.75, 0.5), (0.9, 0.25)):
        assert ((drawn.t >= 500 + share * 481).float().mean() - above).abs() < 0.04
    others = [draws_for(make_recipe(loop={"batch_size": 4000}, lora={"t_shift": 0.5})), drawn]
    assert torch.equal(others[0].t, before.t) and others[0].lora[0].t.float().mean() < 480
    for one in others:
        assert torch.equal(one.eps, before.eps) and torch.equal(one.lora[0].drop, before.lora[0].drop)
        assert torch.equal(one.lora[0].eps, before.lora[0].eps) and torch.equal(one.kappa, before.kappa)


def test_without_a_gap_the_student_does_not_change():
    """With adapters at zero, both teachers are equal, so the loss and its gradient are exactly zero."""
    backbone, recipe = tiny_backbone(), make_recipe()
    d = make_distillation(backbone, recipe)
    text, draws = backbone.encode(PROMPTS), draws_for(recipe)
    loss, gap = d.student_loss(d.student_x0(draws.z, text), text, draws)
    assert loss.item() == 0 and gap.abs().max() == 0


def test_a_loss_that_is_not_finite_changes_nothing():
    backbone, recipe = tiny_backbone(), make_recipe()
    d = make_distillation(backbone, recipe)
    before = {name: weight.clone() for name, weight in d.student.state_dict().items()}
    draws = draws_for(recipe)
    draws.z[0, 0, 0, 0] = float("nan")
    assert d.run(PROMPTS, backbone.encode(PROMPTS), draws).skipped == "student"
    assert all(torch.equal(weight, before[name]) for name, weight in d.student.state_dict().items())


def test_updates_is_the_number_of_lora_steps():
    backbone, recipe = tiny_backbone(), make_recipe(lora={"updates": 5})
    d, text = make_distillation(backbone, recipe), backbone.encode(PROMPTS)
    d.run(PROMPTS, text, draws_for(recipe), fresh=[text] * 4)
    assert {int(state["step"]) for state in d.lora_optimizer.state.values()} == {5}
    assert {int(state["step"]) for state in d.student_optimizer.state.values()} == {1}
