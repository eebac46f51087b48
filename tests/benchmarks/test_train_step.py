"""The plain reference step and the trainer's own must do the same iteration."""

import pytest
import torch
from clock import PHASES
from random_model import SHAPES, write_model
from step_worker import VARIANTS, Bench, Worker, scratch_recipe
from train_step import check_agreement

TINY = SHAPES["sd15-tiny"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model(TINY, path)
    return path


def make_bench(variant, folder, **changes):
    loop = {"batch_size": 2, "latent_size": TINY.side, "precision": "no"}
    recipe = scratch_recipe(folder, {"loop": loop, "clip": {"weight": 0}, **changes})
    return Bench(variant, recipe, cpu=True)


def gradients(bench):
    """Of one iteration as the optimisers get them: the student's and the adapters', each in one vector."""
    seen = {}
    hooks = []
    for optimizer in bench.optimizers():

        def keep(optimizer, *_):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            seen[optimizer] = torch.cat([weight.grad.flatten() for weight in weights])

        hooks.append(optimizer.register_step_pre_hook(keep))
    figures = bench.first()
    for hook in hooks:
        hook.remove()
    return figures, list(seen.values())


def test_the_reference_and_our_step_have_the_same_images_losses_and_gradients(folder):
    ours, theirs = gradients(make_bench("ours", folder)), gradients(make_bench("reference", folder))
    assert check_agreement(ours[0], theirs[0], "no") < 1e-4
    assert theirs[0]["vsd"] > 0, "both teachers agree: nothing was compared"
    for got, want in zip(ours[1], theirs[1], strict=True):
        assert (got - want).norm() < 1e-4 * want.norm()


@pytest.mark.parametrize(
    "change", [{"lora": {"scaling": 127}}, {"guidance": {"teacher_kappa": 3}}, {"student": {"alpha_T_squared": 0.0047}}]
)
def test_another_iteration_is_detected(folder, change):
    """Each is a setting that the reference step does not have."""
    reference = make_bench("reference", folder).first()
    with pytest.raises(AssertionError, match="the variants differ"):
        check_agreement(make_bench("ours", folder, **change).first(), reference, "no")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_phase_is_counted(folder, variant):
    bench = make_bench(variant, folder)
    seconds = bench.phases(1)
    assert list(seconds) == [*PHASES, "the rest"]
    assert all(seconds[phase] > 0 for phase in PHASES)


@pytest.mark.full
@pytest.mark.slow
def test_a_worker_measures_in_its_own_process_and_says_when_it_ends(folder):
    recipe = make_bench("reference", folder).recipe
    with Worker("reference", recipe, cpu=True) as worker:
        assert worker("step") > 0
        assert worker("flops") > 1e9
        assert 1e8 < worker("peak") < 4e9
        with pytest.raises(RuntimeError, match="exit code 1"):
            worker("no_such_thing")
