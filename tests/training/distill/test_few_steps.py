"""Students of several steps, trained by backward simulation; weights of the score gap; fresh batches."""

import copy
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from derived import Reference, cut, gradient
from distilled import MODELS, PROMPTS, draws_for, make_distillation, make_recipe, randomise_lora, relative
from effort import effort, some

from snoopi_core.one_step import Step, euler_step, next_input
from training.distill.rng import fresh_batches
from training.trainer.distributed.state_dicts import trained_state

TOLERANCE = 1e-6
TIMESTEPS = (999, 499)
DRAWS = effort(gate=400, full=4000)
CASES = [
    ("SD1.5", "consistency", "drawn", "sigma_squared"),
    ("SD1.5, v", "euler", "all", "dmd"),
    ("PixArt", "consistency", "all", "uniform"),
    ("SD2.1", "euler", "drawn", "sigma_squared"),
    ("SD1.5", "consistency", "all", "dmd"),
    ("SD1.5, v", "consistency", "drawn", "uniform"),
]


def few_steps(timesteps=TIMESTEPS, **settings):
    return {"timesteps": timesteps, **settings}


@pytest.mark.parametrize("case", some(CASES, 2), ids=", ".join)
def test_two_steps_equal_the_derivation(case):
    """Losses and gradients of both updates in fp64, the LoRA teacher's on a batch of its own."""
    model, transition, through, weight = case
    backbone = MODELS[model]()
    recipe = make_recipe(
        student=few_steps(transition=transition, step_gradient=through),
        lora={"updates": 2, "batches": "fresh", "condition_dropout": 0.5},
        loop={"vsd_weight": weight},
    )
    plain = copy.deepcopy(backbone.network).double()
    d = make_distillation(backbone, recipe, torch.float64)
    randomise_lora(d.teachers)
    state = trained_state(d.teachers.network)
    reference = Reference(plain, state, 8 / 4, backbone.alphas_cumprod(), backbone.prediction_type)
    twin = copy.deepcopy(d.student)
    text = backbone.encode(PROMPTS).to(torch.device("cpu"), torch.float64)
    rows, null = cut(text), cut(d.null)[0]
    draws = draws_for(recipe, 0, torch.float64, step=1)
    assert len(draws.noise) == (transition == "consistency")

    def images(drawn):
        noise = drawn.noise[0] if drawn.noise else None
        return reference.two_steps(twin, drawn.z, noise, rows, TIMESTEPS, through=through == "all")

    x0 = d.student_images(text, draws)
    loss, gap = d.student_loss(x0, text, draws)
    loss.backward()
    want_x0 = images(draws)
    with torch.no_grad():
        want_gap = reference.gap(want_x0.detach(), rows, null, draws, weight)
    want_x0.backward(want_gap / want_gap.numel())
    assert relative(x0, want_x0) < TOLERANCE
    assert relative(gap, want_gap) < TOLERANCE
    assert abs(loss.item() / (0.5 * (want_gap**2).mean().item()) - 1) < TOLERANCE
    assert relative(gradient(d.student), gradient(twin)) < TOLERANCE

    second = draws.lora[1]
    taken = []
    d.update = lambda *_: taken.append(adapters(d.teachers.network))
    metrics = {}
    d.lora_update(x0.detach(), text, second, metrics)
    with torch.no_grad():
        fresh = images(second.images)
    want = reference.lora_loss(fresh, rows, null, second)
    want.backward()
    assert abs(metrics["lora"].item() / want.item() - 1) < TOLERANCE
    names = list(reference.lora)
    got = torch.cat([taken[0][name].flatten() for name in names])
    assert relative(got, torch.cat([reference.lora[name].grad.flatten() for name in names])) < TOLERANCE


def adapters(network):
    named = ((n.replace(".default", ""), p) for n, p in network.named_parameters() if p.requires_grad)
    return {name: parameter.grad.clone() for name, parameter in named}


# Metrics of the third iteration, and norms of both networks afterwards, by the code before there were several steps.
BEFORE = {
    "v": ({"vsd": 8.4837964e-05, "gap": 0.0094725871, "student_grad": 0.021358998, "lora": 0.60901713,
           "lora_grad": 0.034333285, "kappa": 0.83312052}, 57.68329907444178, 7.041261057487715),
    "micro-batches": ({"vsd": 0.00010778410, "gap": 0.0087569784, "student_grad": 0.053584717, "lora": 1.1501474,
                       "lora_grad": 0.042265005, "kappa": 0.83312052}, 57.68325509025408, 7.039020777859433),
}  # fmt: skip


@pytest.mark.parametrize(("name", "written"), [("v", "timestep"), ("micro-batches", "timesteps")])
def test_one_step_is_trained_as_before(name, written):
    """Bit for bit on the machine that wrote these numbers; others round differently."""
    backbone = MODELS["SD1.5, v" if name == "v" else "SD1.5"]()
    changes = {"student": {}} if name == "v" else {
        "loop": {"micro_batch": 1},
        "lora": {"updates": 2, "loss": "native", "batches": "shared"},
        "student": {"alpha_T_squared": 0.25, "nasa_alpha_max": 1.0, "nasa_negatives": ["a blue ring"]},
    }  # fmt: skip
    changes["student"] |= {"timesteps": (999,)} if written == "timesteps" else {}
    recipe = make_recipe(**changes)
    d = make_distillation(backbone, recipe)
    randomise_lora(d.teachers)
    if recipe.student.nasa_alpha_max:
        d.negatives = backbone.encode(list(recipe.student.nasa_negatives))
    text = backbone.encode(PROMPTS)
    for iteration in range(3):
        metrics = d.run(PROMPTS, text, draws_for(recipe, iteration)).metrics
    want, *norms = BEFORE[name]
    assert metrics == pytest.approx(want, rel=1e-4)
    for network, norm in zip((d.student, d.lora_teacher), norms, strict=True):
        weights = torch.cat([weight.flatten() for weight in trained_state(network).values()]).double()
        assert weights.norm().item() == pytest.approx(norm, rel=1e-7)


def test_the_first_step_of_several_is_the_one_step_student():
    """z, t, eps and kappa do not depend on the number of steps, so studies compare the same draws."""
    found = []
    for student in ({}, few_steps()):
        backbone, recipe = MODELS["SD1.5"](), make_recipe(student=student)
        d = make_distillation(backbone, recipe)
        randomise_lora(d.teachers)
        draws = draws_for(recipe, step=0)
        x0 = d.student_images(backbone.encode(PROMPTS), draws)
        found.append((x0, d.student_gap(x0, backbone.encode(PROMPTS), draws)))
    assert all(torch.equal(one, several) for one, several in zip(*found, strict=True))


def test_micro_batches_give_the_same_update():
    """Also on fresh batches, with NASA-T, and through all steps."""
    weights = []
    for size in (0, 1):
        backbone = MODELS["SD1.5"]()
        recipe = make_recipe(
            student=few_steps(step_gradient="all", nasa_alpha_max=1.0, nasa_negatives=["a blue ring"]),
            lora={"updates": 2, "batches": "fresh"},
            loop={"micro_batch": size},
        )
        d = make_distillation(backbone, recipe, torch.float64)
        randomise_lora(d.teachers)
        d.negatives = backbone.encode(["a blue ring"]).to(torch.device("cpu"), torch.float64)
        text = backbone.encode(PROMPTS).to(torch.device("cpu"), torch.float64)
        assert d.run(PROMPTS, text, draws_for(recipe, 0, torch.float64, step=1), fresh=[text]).skipped == ""
        weights.append({**trained_state(d.student), **trained_state(d.lora_teacher)})
    assert all(relative(weights[1][name], weight) < 1e-9 for name, weight in weights[0].items())


def test_half_precision_keeps_the_gradient_of_the_drawn_step():
    """Autocast keeps copies of weights; those of the steps without gradient must not serve the drawn one."""
    backbone, recipe = MODELS["SD1.5"](), make_recipe(student=few_steps())
    d = make_distillation(backbone, recipe)
    d.accelerator = SimpleNamespace(
        autocast=lambda: torch.autocast("cpu", torch.bfloat16), unwrap_model=lambda network: network
    )
    text, draws, gradients = backbone.encode(PROMPTS), draws_for(recipe, step=1), []
    with torch.no_grad():
        first, second = d.levels.steps
        x = next_input(draws.z, d.student_x0(draws.z, text), first, second, draws.noise[0])
    for x0 in (lambda: d.student_images(text, draws), lambda: d.student_x0(x, text, 1)):
        (x0() * draws.eps).mean().backward()
        gradients.append(gradient(d.student))
        d.student.zero_grad()
    assert gradients[0].any() and torch.equal(*gradients)


def test_fresh_batches_are_drawn_by_the_updated_student_without_gradient():
    backbone = MODELS["SD1.5"]()
    recipe = make_recipe(student=few_steps() | {"learning_rate": 1e-2}, lora={"updates": 3, "batches": "fresh"})
    d = make_distillation(backbone, recipe)
    randomise_lora(d.teachers)
    draws, text = draws_for(recipe), backbone.encode(PROMPTS)
    other = [backbone.encode([word] * 3) for word in ("a green star", "white")]
    assert fresh_batches(recipe) == 2 and [lora.images is None for lora in draws.lora] == [True, False, False]
    seen, before = [], copy.deepcopy(d.student)
    loss = d.lora_teacher_loss
    d.lora_teacher_loss = lambda x0, words, part: seen.append((x0, words)) or loss(x0, words, part)
    outcome = d.run(PROMPTS, text, draws, fresh=other)
    assert torch.equal(seen[0][0], outcome.x0) and torch.equal(seen[0][1].states, text.states)
    for (x0, words), own, lora in zip(seen[1:], other, draws.lora[1:], strict=True):
        assert not x0.requires_grad and torch.equal(words.states, own.states)
        assert torch.equal(x0, d.student_images(own, lora.images).detach())
        d.student, after = before, d.student
        assert not torch.equal(x0, d.student_images(own, lora.images).detach())
        d.student = after
    assert not any(weight.grad is not None for weight in d.student.parameters())


@pytest.mark.scaled
@pytest.mark.parametrize(("weights", "shares"), [((1, 2, 1), (0.25, 0.5, 0.25)), ((), (1 / 3, 1 / 3, 1 / 3))])
def test_steps_are_drawn_as_often_as_the_recipe_says(weights, shares):
    recipe = make_recipe(student=few_steps((999, 749, 499), step_weights=weights), loop={"latent_size": 1})
    drawn = [draws_for(recipe, iteration) for iteration in range(DRAWS)]
    counts = Counter(draws.step for draws in drawn)
    five_deviations = 5 * (0.25 / DRAWS) ** 0.5
    assert [counts[step] / DRAWS for step in range(3)] == pytest.approx(shares, abs=five_deviations)
    assert all(len(draws.noise) == draws.step for draws in drawn)


def test_every_noise_is_different_and_depends_on_the_iteration_alone():
    recipe = make_recipe(student=few_steps((999, 749, 499)), lora={"updates": 3, "batches": "fresh"})
    first, again = draws_for(recipe, 7, step=2), draws_for(recipe, 7, step=2)
    batches = [first, *(lora.images for lora in first.lora[1:])]
    tensors = [tensor for batch in batches for tensor in (batch.z, *batch.noise)]
    assert len({tensor.numpy().tobytes() for tensor in tensors}) == len(tensors) == 9
    repeated = [again, *(lora.images for lora in again.lora[1:])]
    assert all(
        torch.equal(a, b)
        for one, other in zip(batches, repeated, strict=True)
        for a, b in zip((one.z, *one.noise), (other.z, *other.noise), strict=True)
    )
    part = first.rows(slice(1, 3), torch.device("cpu"))
    assert torch.equal(part.noise[1], first.noise[1][1:3]) and part.step == 2
    assert torch.equal(part.lora[2].images.noise[0], first.lora[2].images.noise[0][1:3])
    assert torch.equal(draws_for(make_recipe(), 7).z, first.z)


def test_the_deterministic_transition_is_the_nodes_euler_step():
    step, later = Step(999, 0.6, 0.8), Step(499, 0.8, 0.6)
    x, x0 = torch.randn(2, 4, 3, 3, dtype=torch.float64), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    sigma, sigma_next = torch.tensor(0.8 / 0.6).double(), torch.tensor(0.6 / 0.8).double()
    want = euler_step(x / step.alpha, x0, sigma, sigma_next) * later.alpha
    assert relative(next_input(x, x0, step, later, None), want) < 1e-6
