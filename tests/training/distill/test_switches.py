"""Every switch changes only what it should, and all three classes of networks train with each."""

import dataclasses

import pytest
import torch
from distilled import MODELS, PROMPTS, draws_for, make_distillation, make_recipe, randomise_lora, relative
from torch import nn

from snoopi_core.one_step import eps_from_output
from training.distill.losses import add_noise
from training.distill.networks import make_student, trainable
from training.models.guidance.nasa import nasa
from training.trainer.distributed.state_dicts import trained_state


def first_step(model="SD1.5", **changes):
    """x0, score gap, and both losses of the first iteration, with adapters that are not zero."""
    backbone, recipe = MODELS[model](), make_recipe(**changes)
    d = make_distillation(backbone, recipe)
    randomise_lora(d.teachers)
    if recipe.student.nasa_alpha_max:
        d.negatives = backbone.encode(list(recipe.student.nasa_negatives))
    text, draws = backbone.encode(PROMPTS), draws_for(recipe)
    with torch.no_grad(), d._nasa_if_drawn(draws):
        x0 = d.student_x0(draws.z, text)
        return {
            "x0": x0,
            "gap": d.student_gap(x0, text, draws),
            "lora": d.lora_teacher_loss(x0, text, draws.lora[0]),
        }


@pytest.fixture(scope="module")
def plain():
    return first_step()


NASA = {"nasa_alpha_max": 1.0, "nasa_negatives": ["a blue ring"]}


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"guidance": {"kappa_min": 3.0}}, {"gap"}),
        ({"guidance": {"teacher_kappa": 4.5, "lora_kappa": 4.5}}, {"gap"}),
        ({"guidance": {"teacher_kappa": 4.5}}, {"gap"}),
        ({"guidance": {"lora_kappa": 4.5}}, {"gap"}),
        ({"guidance": {"kappa_per": "rank"}}, set()),
        ({"lora": {"loss": "native"}}, {"lora"}),
        ({"lora": {"condition_dropout": 1.0}}, {"lora"}),
        ({"lora": {"updates": 5}}, set()),
        ({"student": {"alpha_T_squared": 0.25}}, {"x0", "gap", "lora"}),
        ({"student": {"timestep": 500}}, {"x0", "gap", "lora"}),
        ({"student": NASA}, {"x0", "gap", "lora"}),
        (
            {"student": NASA | {"nasa_alpha_max": 1e-9}},
            {"gap"},
        ),  # NASA is almost off, so only the teacher's negative acts
        ({"loop": {"t_min": 500}}, {"gap"}),
        ({"lora": {"t_shift": 3.0}}, {"lora"}),
        ({"clip": {"weight": 0.0}}, set()),
        ({"student": {"ema_decay": 0.0}}, set()),
        ({"loop": {"gradient_checkpointing": True}}, set()),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_switch_changes_only_its_own_figures(plain, changes, moved):
    switched = first_step(**changes)
    found = {name for name in plain if relative(switched[name], plain[name]) > 1e-6}
    assert found == moved


@pytest.mark.parametrize("model", MODELS)
def test_nasa_t_steers_the_student_and_guides_the_teacher_by_the_negative(model):
    """Compared with the plain run, the gap grows by the change in the frozen teacher's guidance:
    (1 - kappa) (eps(negative) - eps(null))."""
    backbone, recipe = MODELS[model](), make_recipe(student=NASA)
    d = make_distillation(backbone, recipe)
    randomise_lora(d.teachers)
    d.negatives = negative = backbone.encode(["a blue ring"])
    text, draws = backbone.encode(PROMPTS), draws_for(recipe)
    alpha = draws.nasa[0]
    assert 0 < alpha < 1
    with torch.no_grad():
        with d._nasa_if_drawn(draws):
            x0 = d.student_x0(draws.z, text)
        with nasa(d.student, negative, alpha):
            assert torch.equal(x0, d.student_x0(draws.z, text))
        assert relative(x0, d.student_x0(draws.z, text)) > 1e-3
        more = d.student_gap(x0, text, draws) - d.student_gap(x0, text, dataclasses.replace(draws, nasa=None))
        alpha_t, sigma_t = d.levels.at(draws.t)
        x_t = add_noise(x0, draws.eps, alpha_t, sigma_t)
        eps = []
        with d.teachers.frozen() as teacher:
            for prompt in (negative, d.null):
                output = backbone.call(teacher, x_t, draws.t, prompt.expand(len(x_t)))
                eps.append(eps_from_output(output, x_t, alpha_t, sigma_t, backbone.prediction_type))
    want = sigma_t**2 * (1 - draws.kappa.view(-1, 1, 1, 1)) * (eps[0] - eps[1])
    assert relative(more, want) < 1e-3  # a small difference of large numbers, in fp32


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loss", ["eps", "native"])
@pytest.mark.parametrize("targets", ["attention_qv", "attention", "all"])
def test_every_adapter_of_the_lora_teacher_is_trained(model, loss, targets):
    backbone, recipe = MODELS[model](), make_recipe(lora={"loss": loss, "targets": targets})
    d = make_distillation(backbone, recipe)
    before = {name: weight.clone() for name, weight in trained_state(d.lora_teacher).items()}
    for iteration in range(2):
        d.run(PROMPTS, backbone.encode(PROMPTS), draws_for(recipe, iteration))
    after = trained_state(d.lora_teacher)
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert not still, f"{len(still)} of {len(before)} adapters did not change, first {still[:2]}"


@pytest.mark.parametrize("model", MODELS)
def test_a_lora_student_shares_the_teachers_weights_and_does_not_change_them(model):
    backbone, recipe = MODELS[model](), make_recipe(student={"train": "lora", "lora_rank": 4, "lora_scaling": 4})
    frozen = {weight.data_ptr() for weight in backbone.network.parameters()}
    before = {name: weight.clone() for name, weight in backbone.network.state_dict().items()}
    d = make_distillation(backbone, recipe)
    kept = [weight for weight in d.student.parameters() if not weight.requires_grad]
    assert {weight.data_ptr() for weight in kept} == frozen, "the student has its own copy of frozen weights"
    student = {name: weight.clone() for name, weight in trained_state(d.student).items()}
    for iteration in range(3):
        d.run(PROMPTS, backbone.encode(PROMPTS), draws_for(recipe, iteration))
    assert all(not torch.equal(weight, student[name]) for name, weight in trained_state(d.student).items())
    state = d.teachers.network.state_dict()
    after = {name.replace(".base_layer.", "."): weight for name, weight in state.items() if ".lora_" not in name}
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    teacher, own = {id(p) for p in trainable(d.lora_teacher)}, {id(p) for p in trainable(d.student)}
    assert teacher and own and not teacher & own


def test_a_student_can_start_from_another_checkpoint():
    backbone, recipe = MODELS["SD1.5"](), make_recipe()
    other = {name: weight + 1 for name, weight in backbone.network.state_dict().items()}
    student = make_student(backbone.network, recipe, weights=other)
    assert all(torch.equal(weight, other[name]) for name, weight in student.state_dict().items())


@pytest.mark.parametrize("model", MODELS)
def test_gradient_checkpointing_changes_no_gradient(model):
    gradients = []
    for checkpointing in (False, True):
        backbone = MODELS[model]()
        recipe = make_recipe(loop={"gradient_checkpointing": checkpointing}, student=NASA)
        d = make_distillation(backbone, recipe)
        randomise_lora(d.teachers)
        d.negatives = backbone.encode(["a blue ring"])
        text, draws = backbone.encode(PROMPTS), draws_for(recipe)
        with d._nasa_if_drawn(draws):
            d.student_loss(d.student_x0(draws.z, text), text, draws)[0].backward()
        d.lora_teacher_loss(draws.z, text, draws.lora[0]).backward()
        networks = {"student": d.student, "lora": d.teachers.network}
        gradients.append(
            {(who, name): p.grad for who, n in networks.items() for name, p in n.named_parameters() if p.requires_grad}
        )
    unused = [name for name, grad in gradients[0].items() if grad is None]
    assert not unused, f"unused weights, for which DDP would wait forever: {unused}"
    assert all(relative(gradients[1][name], grad) < 1e-5 for name, grad in gradients[0].items() if grad.any())


@pytest.mark.parametrize("model", MODELS)
def test_gradient_checkpointing_saves_fewer_tensors_for_both_updates(model):
    kept = []
    for checkpointing in (False, True):
        backbone = MODELS[model]()
        d = make_distillation(backbone, make_recipe(loop={"gradient_checkpointing": checkpointing}))
        text, draws = backbone.encode(PROMPTS), draws_for(d.recipe)
        sizes = []
        for loss in (
            lambda d=d, text=text, draws=draws: d.student_x0(draws.z, text),
            lambda d=d, text=text, draws=draws: d.lora_teacher_loss(draws.z, text, draws.lora[0]),
        ):
            seen = {}

            def count(tensor, seen=seen):
                seen[tensor.data_ptr()] = 0 if isinstance(tensor, nn.Parameter) else tensor.nbytes
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                loss()
            sizes.append(sum(seen.values()))
        kept.append(sizes)
    assert all(less < 0.6 * more for more, less in zip(*kept, strict=True)), kept


def test_gradients_are_freed_after_their_update():
    backbone = MODELS["SD1.5"]()
    d = make_distillation(backbone, make_recipe())
    seen = []
    for optimizer in (d.student_optimizer, d.lora_optimizer):
        optimizer.register_step_pre_hook(
            lambda *_: seen.append((has_gradients(d.student), has_gradients(d.teachers.network)))
        )
    d.run(PROMPTS, backbone.encode(PROMPTS), draws_for(d.recipe))
    assert seen == [(True, False), (False, True)]
    assert not has_gradients(d.student) and not has_gradients(d.teachers.network)


def has_gradients(network):
    return any(weight.grad is not None for weight in network.parameters())
